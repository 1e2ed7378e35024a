//! The published schedules and policies that ship with the server, by name.
//!
//! A policy that never changes is a schedule of one epoch: [`Schedule::is_constant`].

use crate::error::ScheduleError;
use crate::formats::json;
use crate::policy::Policy;
use crate::policy::rand_augment::RandAugment;
use crate::provenance::Provenance;
use crate::schedule::{Schedule, Segment};

const CIFAR10_PBA: &str = include_str!("../library/cifar10-pba.json");
const SVHN_PBA: &str = include_str!("../library/svhn-pba.json");
/// Policies that never change.
const CONSTANT: [&str; 4] = [
    include_str!("../library/autoaugment-cifar10.json"),
    include_str!("../library/autoaugment-svhn.json"),
    include_str!("../library/autoaugment-imagenet.json"),
    include_str!("../library/trivial-augment-wide.json"),
];

const RAND_AUGMENT_SOURCE: &str = "Cubuk, Zoph, Shlens, Le: RandAugment: Practical automated data augmentation with a \
    reduced search space, NeurIPS 2020 (arXiv 1909.13719); ops and ranges as in torchvision's RandAugment";

/// Every published schedule and policy; of RandAugment's, `randaugment:2:9`, which stands for all.
pub fn all() -> Vec<Schedule> {
    let constant = CONSTANT.map(read);
    let rand_augment = rand_augment(RandAugment::new(2, 9).expect("two numbers within range"));
    [cifar10_pba(), svhn_pba()].into_iter().chain(constant).chain([rand_augment]).collect()
}

/// The published schedule or policy of a name, `randaugment:N:M` among them; none for a name that is
/// nobody's here.
///
/// # Errors
/// When it is a name of RandAugment's without its two numbers, or with others than are allowed.
///
/// ```
/// use pba_schedules::library;
/// let policy = library::named("randaugment:3:12")?.expect("a policy of RandAugment's");
/// assert!(policy.is_constant());
/// assert_eq!(policy.at_search_epoch(0).to_string(), "3 of 14 ops at magnitude 12 of 30");
/// assert_eq!(library::named("mine")?, None);
/// # Ok::<(), pba_schedules::ScheduleError>(())
/// ```
pub fn named(name: &str) -> Result<Option<Schedule>, ScheduleError> {
    match RandAugment::named(name) {
        Some(policy) => Ok(Some(rand_augment(policy?))),
        None => Ok(all().into_iter().find(|schedule| schedule.name() == name)),
    }
}

fn rand_augment(policy: RandAugment) -> Schedule {
    let segment = Segment { epochs: 1, policy: Policy::RandAugment(policy) };
    let source = Some(RAND_AUGMENT_SOURCE.to_owned());
    Schedule::new(policy.name(), vec![segment], Provenance { source, ..Provenance::default() })
        .expect("the name is the policy's")
}

fn read(document: &str) -> Schedule {
    json::read(document).expect("the library is checked by its tests")
}

/// The paper's schedule for CIFAR-10: 17 segments over 200 epochs, learned on reduced CIFAR-10.
pub fn cifar10_pba() -> Schedule {
    read(CIFAR10_PBA)
}

/// The paper's schedule for SVHN: 14 segments over 160 epochs, learned on reduced SVHN.
pub fn svhn_pba() -> Schedule {
    read(SVHN_PBA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::reference;

    #[track_caller]
    fn check(schedule: Schedule, log: &str, epochs: u32, ends: &[u32]) {
        assert_eq!(schedule.epochs(), epochs);
        assert_eq!(schedule.segments().len(), ends.len());
        let from_log = reference::read(log, schedule.name(), epochs).unwrap();
        assert_eq!(schedule.digest(), from_log.digest());
        // The log says outright from which epoch each new policy holds.
        let mut epoch = 0;
        for (segment, &end) in schedule.segments().iter().zip(ends) {
            for epoch in epoch..end {
                assert_eq!(schedule.at(epoch, epochs).unwrap(), &segment.policy, "epoch {epoch}");
            }
            epoch = end;
        }
        assert_eq!(epoch, epochs);
    }

    #[test]
    fn the_library_is_written_as_we_write() {
        assert_eq!(json::write(&cifar10_pba()), CIFAR10_PBA);
        assert_eq!(json::write(&svhn_pba()), SVHN_PBA);
        for document in CONSTANT {
            assert_eq!(json::write(&read(document)), document);
        }
    }

    /// Names and digests, for ever.
    #[test]
    fn policies_by_name_are_pinned() {
        let constant = [
            ("autoaugment-cifar10", "0f7e6387d846b70895b947557b819a23cfa31519be0c78634f0ae6fbf26bbbae"),
            ("autoaugment-svhn", "1633fc473467682ef8fc60cf4584085baed6a463e33139cf75a26dd29f09d66c"),
            ("autoaugment-imagenet", "b2a22e8622d371daccf3acec59a0ecc21577493644b7146b6710d00d6f08834a"),
            ("trivial-augment-wide", "e63e6154057efffdcf45125400f2198e9d32fcb023150c66eb783294c83555a1"),
            ("randaugment:2:9", "60b95da5f1f16da510044d299ab320132f60fe08fc25bc45d7b14ab8ec6d0fc7"),
            ("randaugment:8:30", "ac40c50a879b38d585ed410ff1869aa9a96fba5ea920ce2bcc9c7f5f50544894"),
        ];
        for (name, digest) in constant {
            let schedule = named(name).unwrap().unwrap_or_else(|| panic!("{name} is not known"));
            assert_eq!((schedule.name(), schedule.epochs()), (name, 1));
            assert!(schedule.is_constant());
            assert_eq!(schedule.digest().to_string(), digest, "{name}");
            assert_eq!(json::read(&json::write(&schedule)).unwrap(), schedule, "{name}");
        }
        assert!(named("cifar10-pba").unwrap().is_some_and(|schedule| !schedule.is_constant()));
        assert_eq!(named("autoaugment-mnist"), Ok(None));
        assert!(named("randaugment:9:9").is_err());
        for schedule in all() {
            assert_eq!(named(schedule.name()), Ok(Some(schedule)));
        }
    }

    #[test]
    fn every_name_is_there_once() {
        let names: Vec<String> = all().iter().map(|schedule| schedule.name().to_owned()).collect();
        assert!(
            all().iter().all(|schedule| schedule.provenance.source.is_some()),
            "each says where it is from"
        );
        assert_eq!(
            names.join(" "),
            "cifar10-pba svhn-pba autoaugment-cifar10 autoaugment-svhn autoaugment-imagenet trivial-augment-wide \
             randaugment:2:9"
        );
    }

    #[test]
    fn autoaugment_has_its_papers_sub_policies() {
        for (name, first, last) in [
            (
                "autoaugment-cifar10",
                "Invert 0.1 then Contrast 0.2/6;",
                "; TranslateY 0.7/9 then AutoContrast 0.9",
            ),
            ("autoaugment-svhn", "ShearX 0.9/4 then Invert 0.2;", "; ShearX 0.7/2 then Invert 0.1"),
            (
                "autoaugment-imagenet",
                "Posterize 0.4/8 then Rotate 0.6/9;",
                "; Equalize 0.8 then Equalize 0.6",
            ),
        ] {
            let policy = named(name).unwrap().unwrap().at_search_epoch(0).clone();
            let words = policy.to_string();
            assert!(words.starts_with(first) && words.ends_with(last), "{words}");
            assert!(matches!(policy, Policy::SubPolicies(policy) if policy.sub_policies().len() == 25));
        }
    }

    #[test]
    fn the_library_is_what_the_reference_published() {
        check(
            cifar10_pba(),
            include_str!("../library/source/rcifar10_16_wrn.txt"),
            200,
            &[12, 34, 54, 74, 75, 81, 84, 111, 117, 138, 144, 153, 160, 177, 183, 195, 200],
        );
        check(
            svhn_pba(),
            include_str!("../library/source/rsvhn_16_wrn.txt"),
            160,
            &[9, 24, 30, 38, 45, 69, 75, 100, 104, 108, 147, 153, 159, 160],
        );
    }
}
