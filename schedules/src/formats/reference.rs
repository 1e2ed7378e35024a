//! Lineage logs, as Ray Tune's population based training writes them for each trial (`pbt_policy_*.txt`) and the
//! reference ships: the exploits that lead to one member.
//!
//! Ray writes them so, from an empty log for each trial:
//!
//! ```text
//! target copies clone:
//!     if the clone has a log, which it has since it first copied another itself:
//!         the target's log = a copy of the clone's
//!     append the exploit to the target's log, and to that of the population
//! ```

use crate::error::ScheduleError;
use std::collections::HashSet;

use crate::formats::exploits::{self, Exploit, check_policies, exploits};
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
/// When a line is not an exploit, a member is copied with another policy than the lines before left it, the epochs do
/// not increase along the lineage, or they pass the search's end; and when the log cannot be that of one trial, so that
/// it does not say whose lineage is meant.
pub fn read(text: &str, name: &str, epochs: u32) -> Result<Schedule, ScheduleError> {
    let exploits = exploits(text)?;
    if let Some(exploit) = first_of_another(&exploits) {
        return Err(ScheduleError::Population { line: exploit.line, known: trials_of(&exploits) });
    }
    check_policies(&exploits)?;
    let lineage = lineage(&exploits);
    let first = &lineage.first().expect("the last exploit is there").before;
    exploits::schedule(first, &lineage, name, epochs)
}

/// The first exploit that cannot be in one trial's log after those before it, if there is one.
///
/// What stands before an exploit is the log of its clone, whose last line has the clone as its target; or the target's own,
/// if the clone had none, and then the clone is the target of no line before it. Lines of which each is of either kind are
/// the log of one trial. A population whose every exploit is of these kinds logs the same lines as its last target.
fn first_of_another(exploits: &[Exploit]) -> Option<&Exploit> {
    let mut targets = HashSet::new();
    let pair = exploits.windows(2).find(|pair| {
        let [before, exploit] = pair else { unreachable!("they are two") };
        targets.insert(&*before.target);
        let is_of_clone = before.target == exploit.clone;
        let is_of_target = before.target == exploit.target && !targets.contains(&*exploit.clone);
        !is_of_clone && !is_of_target
    });
    pair.map(|pair| &pair[1])
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
        refuse(&log, "line 2 does not follow from the line before it");
        refuse(&log, "the log holds the exploits of several trials, as pbt_global.txt does");
        refuse(&log, "its trials are 5, 6, 2, 7, 1");
        // Of two members, and of three: the clone of the last line had a log, which would stand before that.
        let two = line("0", "1", 1, 0, 1) + &line("1", "0", 2, 1, 2) + &line("1", "0", 3, 1, 3);
        refuse(&two, "line 3 does not follow from the line before it");
        let three = line("0", "1", 1, 0, 1) + &line("2", "0", 2, 1, 2) + &line("0", "2", 3, 2, 3);
        check(&three, 8, &[(1, 0), (1, 1), (1, 2), (5, 3)]);
        refuse(&(three + &line("0", "2", 4, 2, 4)), "line 4 does not follow from the line before it");
        // One without a line of those that lead to its end.
        let damaged = line("0", "1", 1, 0, 1) + &line("3", "2", 3, 2, 3);
        refuse(&damaged, "or lines of one trial's log are missing");
    }

    /// Populations by chance, logged as Ray logs them: each trial's log is read, and that of the population only if it is
    /// that of its last target.
    #[test]
    fn of_all_logs_of_a_population_those_of_one_trial_are_read() {
        let mut dice = 1u64;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let (mut same, mut others) = (0, 0);
        for _ in 0..500 {
            let members = 2 + roll(3);
            let mut logs = vec![String::new(); members as usize];
            let mut policies = vec![0; members as usize];
            let (mut global, mut last) = (String::new(), 0);
            for epoch in 1..=1 + roll(6) as u32 {
                let target = roll(members);
                let clone = (target + 1 + roll(members - 1)) % members;
                let [to, from] = [target, clone].map(|member| member as usize);
                let line = line(&target.to_string(), &clone.to_string(), epoch, policies[from], epoch as u8);
                policies[to] = epoch as u8;
                if !logs[from].is_empty() {
                    logs[to] = logs[from].clone();
                }
                logs[to] += &line;
                global += &line;
                last = to;
            }
            for log in logs.iter().filter(|log| !log.is_empty()) {
                assert!(read(log, "log", 8).is_ok(), "{log}");
            }
            let is_same = global == logs[last];
            assert_eq!(read(&global, "log", 8).is_ok(), is_same, "{global}");
            *(if is_same { &mut same } else { &mut others }) += 1;
        }
        assert!(same > 50 && others > 50, "{same}, {others}");
    }

    #[test]
    fn each_policy_leads_to_the_next() {
        let log = line("2", "7", 2, 1, 2) + &line("1", "2", 3, 9, 3);
        refuse(&log, "line 2: \"2\" was copied with another policy than it got in line 1: lines are missing");
        let log = line("2", "7", 2, 1, 2) + &line("2", "7", 3, 9, 3);
        refuse(&log, "line 2: \"7\" was copied with another policy than it was copied with in line 1");
    }
}
