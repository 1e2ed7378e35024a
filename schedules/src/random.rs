//! Schedules that nothing selected: what a search would learn if it did not look at its scores.

use pba_types::rng::{Address, Purpose, below};
use rand::Rng;

use crate::explore::explore;
use crate::op::Op;
use crate::policy::Policy;
use crate::provenance::Provenance;
use crate::schedule::{Schedule, Segment};

/// Epochs of the paper's search on CIFAR-10.
const EPOCHS: u32 = 200;
/// Epochs between two chances to explore, as in the paper's searches.
const INTERVAL: u32 = 3;
/// One in so many chances is taken, as in the paper's searches a quarter of the members is replaced.
const ONE_IN: u32 = 4;
/// Resample probability of the paper.
const RESAMPLE_PROBABILITY: f64 = 0.2;

/// A random schedule over the paper's ops, of as many epochs as its searches have: it begins with the policy
/// that does nothing, and after every third epoch explores with probability 1/4. So policies move through the
/// space as in a search, but without selection. It follows from `seed` alone, and is stretched as any other.
pub fn random_schedule(seed: u64) -> Schedule {
    let mut policy = Policy::zero(&Op::PAPER).expect("the paper's ops are each there once");
    let mut segments = Vec::new();
    for first in (0..EPOCHS).step_by(INTERVAL as usize) {
        // Members of searches are few: none has this number.
        let mut rng = Address { seed, purpose: Purpose::Search, epoch: first, item: u64::MAX }.stream();
        if first > 0 && below(rng.next_u32(), ONE_IN) == 0 {
            policy = explore(&policy, RESAMPLE_PROBABILITY, &mut rng);
        }
        segments.push(Segment { epochs: INTERVAL.min(EPOCHS - first), policy: policy.clone() });
    }
    let provenance = Provenance { seed: Some(seed), ..Provenance::default() };
    Schedule::new(format!("random-{seed}"), segments, provenance).expect("names and epochs are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_from_its_seed() {
        let schedule = random_schedule(1);
        assert_eq!(schedule.digest(), random_schedule(1).digest());
        assert_ne!(schedule.digest(), random_schedule(2).digest());
        assert_eq!(schedule.epochs(), 200);
        assert_eq!((schedule.name(), schedule.provenance.seed), ("random-1", Some(1)));
    }

    #[test]
    fn it_begins_with_the_policy_that_does_nothing() {
        let zero = Policy::zero(&Op::PAPER).unwrap();
        for seed in 0..100 {
            assert_eq!(random_schedule(seed).at_search_epoch(0), &zero, "seed {seed}");
        }
    }

    /// Over many schedules, policies change as often as chance says.
    #[test]
    fn it_explores_a_quarter_of_the_time() {
        let changes: usize = (0..400)
            .map(|seed| {
                let schedule = random_schedule(seed);
                schedule.segments().windows(2).filter(|pair| pair[0].policy != pair[1].policy).count()
            })
            .sum();
        // 400 times 66 chances: mean 6,600, standard deviation 70.
        assert!(changes.abs_diff(6_600) < 280, "{changes}");
    }
}
