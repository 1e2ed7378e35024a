//! A schedule of pairs as a table, for spreadsheets and plots: a row for each slot of each segment.

use std::fmt::Write;

use crate::error::ScheduleError;
use crate::op::PROBABILITY_MAX;
use crate::schedule::Schedule;

/// The columns: the first and the last epoch of a segment, 0-based; the place of the slot in the policy, 0-based;
/// its op, its probability, 0..=1, and its magnitude level, 0..=9.
const COLUMNS: &str = "first_epoch,last_epoch,slot,op,probability,magnitude";

/// Writes a schedule as comma-separated values.
///
/// # Errors
/// When a policy is no policy of pairs.
pub fn write(schedule: &Schedule) -> Result<String, ScheduleError> {
    let mut text = format!("{COLUMNS}\n");
    let mut first = 0;
    for segment in schedule.segments() {
        let pairs = segment.policy.as_pairs().ok_or_else(|| ScheduleError::NotExpressible {
            format: "CSV",
            reason: format!("a policy of family {:?} has no slots", segment.policy.family()),
        })?;
        let last = first + segment.epochs - 1;
        for (place, slot) in pairs.slots().iter().enumerate() {
            let probability = f64::from(slot.probability) / f64::from(PROBABILITY_MAX);
            writeln!(text, "{first},{last},{place},{},{probability:.1},{}", slot.op, slot.magnitude)
                .expect("a text takes what is written");
        }
        first = last + 1;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;

    #[test]
    fn each_slot_of_each_segment_is_a_row() {
        let schedule = library::cifar10_pba();
        let text = write(&schedule).unwrap();
        let mut rows = text.lines();
        assert_eq!(rows.next(), Some(COLUMNS));
        let mut epoch = 0;
        for segment in schedule.segments() {
            for (place, slot) in segment.policy.slots().iter().enumerate() {
                let row: Vec<&str> = rows.next().unwrap().split(',').collect();
                let last = epoch + segment.epochs - 1;
                assert_eq!(
                    row[..4],
                    [&epoch.to_string(), &last.to_string(), &place.to_string(), slot.op.name()]
                );
                assert_eq!((row[4].parse::<f64>().unwrap() * 10.0).round() as u8, slot.probability);
                assert_eq!(row[5], slot.magnitude.to_string());
            }
            epoch += segment.epochs;
        }
        assert_eq!((rows.next(), epoch), (None, 200));
    }

    #[test]
    fn a_policy_without_slots_is_refused() {
        let error = write(&library::named("trivial-augment-wide").unwrap().unwrap()).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot be written as CSV: a policy of family \"trivial-augment-wide\" has no slots"
        );
    }
}
