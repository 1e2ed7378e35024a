//! The population, and who copies whom.

use pba_schedules::rng::{Address, Purpose, below};
use pba_schedules::{Op, Policy, explore};
use rand::Rng;

use crate::event::Exploit;
use crate::lineage::{Lineage, Step};

/// One model of the population.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its position in the population, from 0.
    pub id: u32,
    /// The policy it trains with.
    pub policy: Policy,
    /// Validation accuracy, 0..1, when it was last scored itself; NaN when it had diverged. A copy
    /// keeps the score from before until the next scores: what its new policy is worth is unknown.
    pub score: Option<f64>,
    /// Epochs trained since it last copied another member, or since the start.
    pub age: u32,
    /// The member it last copied.
    pub parent: Option<u32>,
    /// The policies that led to its weights.
    pub lineage: Lineage,
}

/// All members.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// By id.
    pub members: Vec<Member>,
}

impl Population {
    /// Members that all start with the policy that does nothing, as in the paper.
    pub fn new(members: u32, ops: &[Op]) -> Population {
        let policy = Policy::zero(ops).expect("a checked spec has a usable list of ops");
        let member = |id| Member {
            id,
            policy: policy.clone(),
            score: None,
            age: 0,
            parent: None,
            lineage: Lineage(vec![Step { epoch: 0, member: id, policy: policy.clone() }]),
        };
        Population { members: (0..members).map(member).collect() }
    }

    /// The member that scores best.
    pub fn best(&self) -> &Member {
        &self.members[ranking(&self.scores())[0]]
    }

    /// Truncation selection: each member of the bottom quantile copies a random one of the top
    /// quantile, and explores its policy.
    ///
    /// What a member draws depends on (seed, epoch, member) alone.
    pub fn select(&self, quantile: f64, resample_probability: f64, seed: u64, epoch: u32) -> Vec<Exploit> {
        let ranking = ranking(&self.scores());
        let count = quantile_count(ranking.len(), quantile);
        let (top, bottom) = (&ranking[..count], &ranking[ranking.len() - count..]);
        let exploit = |&target: &usize| {
            let address = Address { seed, purpose: Purpose::Search, epoch, item: target as u64 };
            let mut rng = address.stream();
            let donor = &self.members[top[below(rng.next_u32(), count as u32) as usize]];
            Exploit {
                epoch,
                target: target as u32,
                clone: donor.id,
                target_score: self.members[target].score,
                clone_score: donor.score,
                clone_policy: donor.policy.hyperparameters(),
                policy: explore(&donor.policy, resample_probability, &mut rng).hyperparameters(),
            }
        };
        bottom.iter().map(exploit).collect()
    }

    /// Records that every member trained `epochs` more epochs and was scored.
    pub(crate) fn score(&mut self, scores: &[Option<f64>], epochs: u32) {
        for (member, score) in self.members.iter_mut().zip(scores) {
            member.score = Some(score.unwrap_or(f64::NAN));
            member.age += epochs;
        }
    }

    /// The target becomes the clone, with the policy that it explored.
    pub(crate) fn copy(&mut self, exploit: &Exploit, policy: Policy) {
        let Member { id: parent, mut lineage, .. } = self.members[exploit.clone as usize].clone();
        let (epoch, id) = (exploit.epoch, exploit.target);
        lineage.0.push(Step { epoch, member: id, policy: policy.clone() });
        let target = &mut self.members[id as usize];
        *target = Member { id, policy, score: target.score, age: 0, parent: Some(parent), lineage };
    }

    fn scores(&self) -> Vec<f64> {
        self.members.iter().map(|member| member.score.unwrap_or(f64::NAN)).collect()
    }
}

/// Positions from the best score to the worst. NaN ranks last; of equal scores the lower id
/// ranks first.
fn ranking(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |member: usize| if scores[member].is_nan() { f64::NEG_INFINITY } else { scores[member] };
    // A stable sort keeps equal scores by id.
    order.sort_by(|&one, &other| score(other).partial_cmp(&score(one)).expect("neither is NaN"));
    order
}

/// Members in a quantile: `ceil(members * quantile)`, but never so many that top and bottom
/// overlap.
pub fn quantile_count(members: usize, quantile: f64) -> usize {
    ((members as f64 * quantile).ceil() as usize).min(members / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_round_up_and_never_overlap() {
        let counts: Vec<usize> = (2..=17).map(|members| quantile_count(members, 0.25)).collect();
        assert_eq!(counts, [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]);
        let halves: Vec<usize> = (2..=7).map(|members| quantile_count(members, 0.5)).collect();
        assert_eq!(halves, [1, 1, 2, 2, 3, 3]);
        assert_eq!(quantile_count(200, 1e-9), 1);
    }

    #[test]
    fn ties_go_by_id_and_nan_goes_last() {
        assert_eq!(ranking(&[0.5, f64::NAN, 0.7, 0.5, f64::NAN, 0.7]), [2, 5, 0, 3, 1, 4]);
        assert_eq!(ranking(&[f64::NAN; 3]), [0, 1, 2]);
        assert_eq!(ranking(&[0.0, -0.0]), [0, 1]);
    }

    #[test]
    fn the_bottom_copies_the_top() {
        for members in 2..=19u32 {
            let mut population = Population::new(members, &[Op::Rotate]);
            let scores: Vec<_> = (0..members).map(|id| Some(f64::from(id * 7 % members))).collect();
            population.score(&scores, 3);
            let count = quantile_count(members as usize, 0.25);
            let ranking = ranking(&population.scores());
            let exploits = population.select(0.25, 0.2, 5, 3);
            let targets: Vec<usize> = exploits.iter().map(|exploit| exploit.target as usize).collect();
            assert_eq!(targets, ranking[ranking.len() - count..]);
            for exploit in &exploits {
                assert!(ranking[..count].contains(&(exploit.clone as usize)), "{exploit:?}");
            }
            assert_eq!(exploits, population.select(0.25, 0.2, 5, 3), "the same address, the same draw");
        }
    }

    /// A member ages with each generation, and a copy begins anew, with the lineage of whom it copied.
    #[test]
    fn ages_and_lineages_are_those_of_the_weights() {
        let mut population = Population::new(4, &[Op::Rotate]);
        population.score(&[Some(0.1), Some(0.2), Some(0.3), Some(0.4)], 3);
        for exploit in population.select(0.25, 0.2, 7, 3) {
            let policy = Policy::from_hyperparameters(&[Op::Rotate], &exploit.policy).unwrap();
            population.copy(&exploit, policy);
        }
        population.score(&[Some(0.1), Some(0.2), Some(0.3), Some(0.4)], 2);
        let ages: Vec<u32> = population.members.iter().map(|member| member.age).collect();
        assert_eq!(ages, [2, 5, 5, 5]);
        let ids: Vec<u32> = population.members.iter().map(|member| member.id).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        let steps: Vec<(u32, u32)> =
            population.members[0].lineage.0.iter().map(|step| (step.epoch, step.member)).collect();
        assert_eq!(steps, [(0, 3), (3, 0)]);
        assert_eq!(population.members[0].policy, population.members[0].lineage.0[1].policy);
        assert_eq!(population.members[3].lineage.0.len(), 1);
    }

    #[test]
    fn a_copy_keeps_its_own_score_until_the_next() {
        let mut population = Population::new(4, &[Op::Rotate]);
        population.score(&[Some(0.3), Some(0.9), Some(0.5), None], 3);
        let exploits = population.select(0.25, 0.2, 0, 3);
        assert_eq!((exploits.len(), exploits[0].target, exploits[0].clone), (1, 3, 1));
        let policy = Policy::from_hyperparameters(&[Op::Rotate], &exploits[0].policy).unwrap();
        population.copy(&exploits[0], policy);
        let copy = &population.members[3];
        assert!(copy.score.is_some_and(f64::is_nan));
        assert_eq!((copy.age, copy.parent), (0, Some(1)));
        assert_eq!(population.best().id, 1, "who was copied is still the best");
    }

    #[test]
    fn every_donor_is_as_likely() {
        let mut population = Population::new(16, &[Op::Rotate]);
        population.score(&[Some(0.5); 16], 1);
        let mut counts = [0u32; 4];
        for epoch in 0..1_000 {
            for exploit in population.select(0.25, 0.2, 0, epoch) {
                counts[exploit.clone as usize] += 1;
            }
        }
        // 4,000 draws over 4 donors: standard deviation 27.
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 120), "{counts:?}");
    }
}
