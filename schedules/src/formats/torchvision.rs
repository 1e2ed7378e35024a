//! The transform of torchvision that does the same, as a Python expression; for a policy that it has.

use crate::error::ScheduleError;
use crate::library;
use crate::policy::Policy;
use crate::schedule::Schedule;

/// Policies of AutoAugment's that torchvision has, by their names in [`library`] and in it.
const AUTO_AUGMENT: [(&str, &str); 3] =
    [("autoaugment-cifar10", "CIFAR10"), ("autoaugment-svhn", "SVHN"), ("autoaugment-imagenet", "IMAGENET")];

/// Writes a schedule as a transform of `torchvision.transforms`, such as
/// `torchvision.transforms.RandAugment(num_ops=2, magnitude=9)`.
///
/// # Errors
/// When torchvision has no such transform: the schedule changes, or its policy is not one of torchvision's.
pub fn write(schedule: &Schedule) -> Result<String, ScheduleError> {
    let refuse =
        |reason: String| Err(ScheduleError::NotExpressible { format: "a transform of torchvision", reason });
    let policy = schedule.at_search_epoch(0);
    if schedule.segments().iter().any(|segment| segment.policy != *policy) {
        return refuse("it changes by epoch, and a transform does not; stream it instead".to_owned());
    }
    let transform = match policy {
        Policy::RandAugment(policy) => {
            format!("RandAugment(num_ops={}, magnitude={})", policy.count(), policy.magnitude())
        }
        Policy::TrivialAugmentWide(_) => "TrivialAugmentWide()".to_owned(),
        Policy::SubPolicies(_) => {
            let is_it = |name| {
                library::named(name)
                    .is_ok_and(|known| known.is_some_and(|known| known.at_search_epoch(0) == policy))
            };
            match AUTO_AUGMENT.into_iter().find(|(name, _)| is_it(name)) {
                Some((_, name)) => format!("AutoAugment(torchvision.transforms.AutoAugmentPolicy.{name})"),
                None => {
                    return refuse(
                        "its sub-policies are none of AutoAugment's three published lists".to_owned(),
                    );
                }
            }
        }
        Policy::Pairs(_) => {
            return refuse(
                "torchvision has no transform for learned pairs of ops; stream it instead".to_owned(),
            );
        }
    };
    Ok(format!("torchvision.transforms.{transform}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;
    use crate::policy::{Chance, SubPolicies};
    use crate::provenance::Provenance;
    use crate::schedule::Segment;

    #[test]
    fn policies_by_name_are_transforms() {
        for (name, expected) in [
            ("randaugment:2:9", "RandAugment(num_ops=2, magnitude=9)"),
            ("randaugment:3:30", "RandAugment(num_ops=3, magnitude=30)"),
            ("trivial-augment-wide", "TrivialAugmentWide()"),
            ("autoaugment-cifar10", "AutoAugment(torchvision.transforms.AutoAugmentPolicy.CIFAR10)"),
            ("autoaugment-svhn", "AutoAugment(torchvision.transforms.AutoAugmentPolicy.SVHN)"),
            ("autoaugment-imagenet", "AutoAugment(torchvision.transforms.AutoAugmentPolicy.IMAGENET)"),
        ] {
            let schedule = library::named(name).unwrap().unwrap();
            assert_eq!(write(&schedule).unwrap(), format!("torchvision.transforms.{expected}\n"));
        }
    }

    #[test]
    fn what_torchvision_does_not_have_is_refused() {
        let refuse = |schedule: &Schedule, says| {
            let error = write(schedule).unwrap_err().to_string();
            assert!(
                error.contains("cannot be written as a transform of torchvision: ") && error.contains(says),
                "{error}"
            );
        };
        refuse(&library::cifar10_pba(), "it changes by epoch");
        let constant =
            |policy| Schedule::new("c", vec![Segment { epochs: 9, policy }], Provenance::default()).unwrap();
        refuse(&constant(Policy::zero(&Op::PAPER).unwrap()), "no transform for learned pairs of ops");
        let chance = Chance { op: Op::Invert, probability: 1, magnitude: None };
        let other = SubPolicies::new(vec![[chance, chance]]).unwrap();
        refuse(&constant(Policy::SubPolicies(other)), "none of AutoAugment's three");
    }
}
