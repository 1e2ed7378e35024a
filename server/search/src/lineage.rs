//! The policies that led to a member's weights.

use pba_schedules::{Policy, Provenance, Schedule, ScheduleError, Segment};

/// A policy of a lineage, from the epoch at which it took over.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Epochs that were finished when it took over.
    pub epoch: u32,
    /// The member that trained with it.
    pub member: u32,
    /// The policy.
    pub policy: Policy,
}

/// The policies that led to a member's weights, oldest first: its own and, before each copy,
/// those of the member it copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage(pub Vec<Step>);

impl Lineage {
    /// The lineage as a schedule of `epochs`, the last policy lasting to the end.
    ///
    /// # Errors
    /// When the name is not usable, or the last policy took over at `epochs` or later.
    pub fn schedule(
        &self,
        name: &str,
        epochs: u32,
        provenance: Provenance,
    ) -> Result<Schedule, ScheduleError> {
        let ends = self.0[1..].iter().map(|step| step.epoch).chain([epochs]);
        let segments = self.0.iter().zip(ends).map(|(step, end)| Segment {
            epochs: end.saturating_sub(step.epoch),
            policy: step.policy.clone(),
        });
        Schedule::new(name, segments.collect(), provenance)
    }
}

#[cfg(test)]
mod tests {
    use pba_schedules::Op;

    use super::*;

    fn policy(level: u8) -> Policy {
        Policy::from_hyperparameters(&[Op::Rotate], &[level, 0, 0, 0]).unwrap()
    }

    #[test]
    fn a_lineage_becomes_segments() {
        let steps = [(0, 4), (3, 1), (9, 2)].into_iter().zip(0..);
        let step = |((epoch, member), level)| Step { epoch, member, policy: policy(level) };
        let lineage = Lineage(steps.map(step).collect());
        let schedule = lineage.schedule("x", 11, Provenance::default()).unwrap();
        let segments: Vec<_> =
            schedule.segments().iter().map(|s| (s.epochs, s.policy.slots()[0].probability)).collect();
        assert_eq!(segments, [(3, 0), (6, 1), (2, 2)]);
        assert!(lineage.schedule("x", 9, Provenance::default()).is_err());
    }
}
