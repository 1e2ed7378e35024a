//! Lineage logs, as Ray Tune's population based training writes them for each trial (`pbt_policy_*.txt`) and the
//! reference ships: the exploits that lead to one member.

use crate::error::ScheduleError;
use crate::formats::exploits::{self, Exploit, exploits};
use crate::formats::population::trials_of;
use crate::schedule::Schedule;

/// Turns the lineage of a search of `epochs` epochs into a schedule.
///
/// The lineage is followed backwards from the last line: an earlier line belongs to it while its
/// target is the member that the later line cloned. The first policy holds until the epoch of
/// the lineage's first line; each line's new policy from its own epoch to the next line's; the last one to
/// the end.
///
/// # Errors
/// When a line is not an exploit, the epochs do not increase along the lineage, or they pass the
/// search's end; and when the log holds the exploits of a whole population, of which it does not say whose lineage is
/// meant.
pub fn read(text: &str, name: &str, epochs: u32) -> Result<Schedule, ScheduleError> {
    let exploits = exploits(text)?;
    if is_of_a_population(&exploits) {
        return Err(ScheduleError::Population { known: trials_of(&exploits) });
    }
    let lineage = lineage(&exploits);
    let first = &lineage.first().expect("the last exploit is there").before;
    exploits::schedule(first, &lineage, name, epochs)
}

/// Whether a log is no lineage. A member's log is that of the member it copied and its own exploit; where
/// that one had none, its own earlier exploits stay before it. So a line that does not lead to the next is of the same
/// member.
fn is_of_a_population(exploits: &[Exploit]) -> bool {
    exploits.windows(2).any(|pair| pair[0].target != pair[1].clone && pair[0].target != pair[1].target)
}

/// The exploits that lead to the last one, oldest first.
fn lineage(exploits: &[Exploit]) -> Vec<&Exploit> {
    let mut lineage: Vec<&Exploit> = Vec::new();
    for exploit in exploits.iter().rev() {
        if lineage.last().is_some_and(|later| later.clone != exploit.target) {
            break;
        }
        lineage.push(exploit);
    }
    lineage.reverse();
    lineage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::exploits::tests::{levels, line, outline};

    #[track_caller]
    fn check(log: &str, epochs: u32, expected: &[(u32, u8)]) {
        assert_eq!(outline(&read(log, "log", epochs).unwrap()), expected);
    }

    #[test]
    fn a_lineage_is_followed_backwards() {
        // 2 <- 6 does not lead to the end: 2 copied 7 later, which had copied none.
        let log = line("2", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("1", "2", 5, 2, 3);
        check(&log, 8, &[(2, 1), (3, 2), (3, 3)]);
    }

    #[test]
    fn two_exploits_at_one_epoch_leave_no_empty_segment() {
        let log = line("2", "7", 3, 1, 2) + &line("1", "2", 3, 2, 3);
        check(&log, 4, &[(3, 1), (1, 3)]);
    }

    #[test]
    fn a_policy_that_stays_is_one_segment() {
        let log = line("2", "7", 2, 1, 1) + &line("1", "2", 3, 1, 2) + &line("3", "1", 5, 2, 2);
        check(&log, 8, &[(3, 1), (5, 2)]);
        let back = line("2", "7", 3, 1, 2) + &line("1", "2", 3, 2, 1);
        check(&back, 8, &[(8, 1)]);
    }

    #[test]
    fn ray_tune_objects_and_number_tags_are_read() {
        let config = |first: u8| format!("{{\"lr\": 0.1, \"hp_policy\": {:?}}}", levels(first));
        let log = format!("[1, 2, 3, 3, {}, {}]", config(1), config(2));
        check(&log, 4, &[(3, 1), (1, 2)]);
    }

    #[track_caller]
    fn refuse(log: &str, says: &str) {
        let error = read(log, "log", 8).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_logs_are_refused_by_line() {
        refuse("", "no exploit");
        refuse(&(line("2", "7", 2, 1, 2) + "[1, 2]"), "line 2: a list of 2 entries");
        refuse("nonsense", "line 1: not a list");
        refuse(&line("2", "7", 8, 1, 2), "exploit at epoch 8");
        for epoch in ["-1", "2.5", "4294967296", "\"3\""] {
            let log = line("2", "7", 3, 1, 2).replacen(", 3, 3, ", &format!(", 3, {epoch}, "), 1);
            let log = log.replace('\'', "\"");
            refuse(&log, &format!("line 1: clone iteration {epoch} is not a count of epochs"));
        }
        refuse(&(line("2", "7", 5, 1, 2) + &line("1", "2", 4, 2, 3)), "line 2: exploit at epoch 4");
        refuse(&line("2", "7", 2, 11, 2), "probability 11");
    }

    /// The last line of `pbt_global.txt` is one of its trials only, and not the best.
    #[test]
    fn the_log_of_a_population_is_no_lineage() {
        let log = line("5", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("1", "2", 5, 2, 3);
        refuse(&log, "the log holds the exploits of several trials, as pbt_global.txt does");
        refuse(&log, "its trials are 5, 6, 2, 7, 1");
    }
}
