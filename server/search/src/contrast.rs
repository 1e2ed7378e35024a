//! The differences of arms and groups, with their intervals and what they say.

use pba_specs::{Arm, ComparisonSpec, Contrast, Unit, Verdict};

use crate::statistics::{Uncertainty, interval, mean};

/// The errors of all runs so far, and what is made of them.
pub(crate) struct Errors {
    /// By arm and seed.
    pub(crate) by_arm: Vec<Vec<Option<f64>>>,
    /// Least variance of a difference.
    pub(crate) floor: f64,
    /// Share of the images that would not matter.
    pub(crate) margin: f64,
}

/// An arm or a group: what has a mean.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Positions of its arms.
    pub(crate) arms: Vec<usize>,
}

/// The groups, and the arms that are in none, in the order of the arms.
pub(crate) fn subjects(spec: &ComparisonSpec) -> Vec<Subject> {
    let position = |arm: &Arm| spec.arms.iter().position(|other| other == arm).expect("a checked spec");
    let group = |(name, arms): (&String, &Vec<Arm>)| Subject {
        name: name.clone(),
        arms: arms.iter().map(position).collect(),
    };
    let mut subjects: Vec<Subject> = spec.groups.iter().map(group).collect();
    for (arm, name) in spec.arms.iter().enumerate() {
        if !subjects.iter().any(|subject| subject.arms.contains(&arm)) {
            subjects.push(Subject { name: name.to_string(), arms: vec![arm] });
        }
    }
    subjects.sort_by_key(|subject| subject.arms.iter().min().copied());
    subjects
}

impl Errors {
    /// The errors of an arm.
    pub(crate) fn of(&self, arm: usize) -> Vec<f64> {
        self.by_arm[arm].iter().copied().flatten().collect()
    }

    /// The mean error of an arm.
    pub(crate) fn mean_of(&self, arm: usize) -> Option<f64> {
        mean(&self.of(arm))
    }

    /// The mean error of a subject, over the arms that have any.
    pub(crate) fn mean(&self, subject: &Subject) -> Option<f64> {
        mean(&subject.arms.iter().filter_map(|&arm| mean(&self.of(arm))).collect::<Vec<_>>())
    }

    /// The difference of two subjects, over the seeds that all their arms have.
    ///
    /// Between two arms it is paired by seed. A group is a sample of what its arms stand for: its
    /// differences vary over the arms, and over the seeds, which all arms share; the interval adds both.
    /// Two groups of the same schedules, as with an ablation, are paired by schedule.
    pub(crate) fn contrast(
        &self,
        spec: &ComparisonSpec,
        one: &Subject,
        other: &Subject,
        confidence: f64,
    ) -> Contrast {
        let (one, other) = (one, &aligned(spec, one, other));
        let are_paired = other.arms.len() == 1 || schedules(spec, one) == schedules(spec, other);
        let seeds = (0..self.by_arm[0].len())
            .filter(|&seed| one.arms.iter().chain(&other.arms).all(|&arm| self.by_arm[arm][seed].is_some()));
        let seeds: Vec<usize> = seeds.collect();
        let by_arm = |subject: &Subject| -> Vec<Vec<f64>> {
            let errors = |&arm: &usize| seeds.iter().filter_map(|&seed| self.by_arm[arm][seed]).collect();
            subject.arms.iter().map(errors).collect()
        };
        let (ones, others) = (by_arm(one), by_arm(other));
        let by_seed =
            |arms: &[Vec<f64>], seed| mean(&arms.iter().map(|errors| errors[seed]).collect::<Vec<_>>());
        let over_seeds: Vec<f64> = (0..seeds.len())
            .filter_map(|seed| Some(by_seed(&ones, seed)? - by_seed(&others, seed)?))
            .collect();
        let difference = mean(&over_seeds);
        let means = |arms: &[Vec<f64>]| arms.iter().filter_map(|errors| mean(errors)).collect::<Vec<f64>>();
        let (ones, others) = (means(&ones), means(&others));
        let over_arms: Vec<Vec<f64>> = match (ones.len(), others.len()) {
            (0 | 1, 0 | 1) => Vec::new(),
            _ if are_paired => {
                vec![ones.iter().zip(others.iter().cycle()).map(|(one, other)| one - other).collect()]
            }
            (1, _) => vec![others],
            _ => vec![ones, others],
        };
        let unit = if over_arms.is_empty() { Unit::Seed } else { Unit::Arm };
        let n = over_arms.iter().map(Vec::len).min().unwrap_or(over_seeds.len()) as u32;
        let parts: Option<Vec<Uncertainty>> = over_arms
            .iter()
            .chain([&over_seeds])
            .map(|differences| Uncertainty::of_mean(differences, self.floor))
            .collect();
        let interval =
            difference.zip(parts).map(|(difference, parts)| interval(difference, &parts, confidence));
        let verdict = difference.map(|_| verdict(interval, self.margin));
        Contrast {
            arm: one.name.clone(),
            against: other.name.clone(),
            difference,
            interval,
            n,
            unit,
            verdict,
        }
    }
}

fn verdict(interval: Option<[f64; 2]>, margin: f64) -> Verdict {
    match interval {
        Some([_, high]) if high < 0.0 => Verdict::Better,
        Some([low, _]) if low > 0.0 => Verdict::Worse,
        Some([low, high]) if low >= -margin && high <= margin => Verdict::NoDifference,
        _ => Verdict::TooFew,
    }
}

/// The schedules of a subject's arms, in order; none where an arm has none.
fn schedules<'a>(spec: &'a ComparisonSpec, subject: &Subject) -> Option<Vec<&'a str>> {
    subject.arms.iter().map(|&arm| spec.arms[arm].schedule()).collect()
}

/// The second of two subjects with its arms in the order of the first one's schedules, if they have the same.
fn aligned(spec: &ComparisonSpec, one: &Subject, other: &Subject) -> Subject {
    let place = |schedule: Option<&str>| {
        let is_it = |&&arm: &&usize| schedule.is_some() && spec.arms[arm].schedule() == schedule;
        other.arms.iter().find(is_it).copied()
    };
    let arms: Option<Vec<usize>> = one.arms.iter().map(|&arm| place(spec.arms[arm].schedule())).collect();
    let arms = arms.filter(|arms| {
        let mut each = arms.clone();
        each.sort_unstable();
        each.dedup();
        each.len() == other.arms.len()
    });
    Subject { name: other.name.clone(), arms: arms.unwrap_or_else(|| other.arms.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_interval() {
        let verdict = |interval| verdict(Some(interval), 0.005);
        assert_eq!(verdict([-0.02, -0.001]), Verdict::Better);
        assert_eq!(verdict([0.001, 0.02]), Verdict::Worse);
        assert_eq!(verdict([-0.004, 0.005]), Verdict::NoDifference);
        assert_eq!(verdict([-0.005, 0.004]), Verdict::NoDifference);
        assert_eq!(verdict([-0.006, 0.004]), Verdict::TooFew);
        assert_eq!(verdict([-0.004, 0.006]), Verdict::TooFew);
        // 0 itself is neither better nor worse.
        assert_eq!(verdict([-0.004, 0.0]), Verdict::NoDifference);
        assert_eq!(verdict([0.0, 0.004]), Verdict::NoDifference);
        assert_eq!(verdict([-0.02, 0.0]), Verdict::TooFew);
        assert_eq!(super::verdict(None, 0.005), Verdict::TooFew);
    }
}
