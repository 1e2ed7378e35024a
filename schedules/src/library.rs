//! The published schedules that ship with the server.

use crate::formats::json;
use crate::schedule::Schedule;

const CIFAR10_PBA: &str = include_str!("../library/cifar10-pba.json");
const SVHN_PBA: &str = include_str!("../library/svhn-pba.json");

/// Every published schedule.
pub fn all() -> Vec<Schedule> {
    vec![cifar10_pba(), svhn_pba()]
}

/// The paper's schedule for CIFAR-10: 17 segments over 200 epochs, learned on reduced CIFAR-10.
pub fn cifar10_pba() -> Schedule {
    json::read(CIFAR10_PBA).expect("the library is checked by its tests")
}

/// The paper's schedule for SVHN: 14 segments over 160 epochs, learned on reduced SVHN.
pub fn svhn_pba() -> Schedule {
    json::read(SVHN_PBA).expect("the library is checked by its tests")
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
