//! Logs of a whole population, as Ray Tune's population based training writes them (`pbt_global.txt`): every exploit of
//! every trial, in the order in which they happened.
//!
//! The lineage of one trial is rebuilt from it:
//!
//! ```text
//! member = the trial
//! for each exploit, the last first:
//!     if its target is member: keep it, and go on with member = its clone
//! ```
//!
//! What a trial was before its last exploit does not matter, as that replaced its weights and its policy by those
//! of the clone; what the clone did later does not either.

use crate::error::ScheduleError;
use crate::formats::exploits::{self, Exploit, check_policies, exploits};
use crate::schedule::Schedule;

/// Turns the lineage of one trial of a search of `epochs` epochs into a schedule.
///
/// The trial is named by its tag, as it stands in the log, or by its number, with which its tag begins and its id ends: `3`
/// and `a1b2c_00003` are both the trial of the tag `3_lr=0.1`. A log does not say the rest of an id, which is of the run.
///
/// # Errors
/// When a line is not an exploit, the log does not hold the trial, a member is copied with another policy than the lines
/// before left it, the epochs do not increase along the lineage, or they pass the search's end.
pub fn read(text: &str, trial: &str, name: &str, epochs: u32) -> Result<Schedule, ScheduleError> {
    let exploits = exploits(text)?;
    let trial = tag(&exploits, trial)?;
    check_policies(&exploits)?;
    let lineage = lineage(&exploits, trial);
    // One that never copied another keeps the policy with which others copied it.
    let copied = || exploits.iter().find(|exploit| exploit.clone == trial);
    let first = lineage.first().copied().or_else(copied).expect("a trial of the log copied, or was copied");
    exploits::schedule(&first.before, &lineage, name, epochs)
}

/// The trials of a log, each once, in the order in which they come.
pub(super) fn trials_of(exploits: &[Exploit]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let tags = exploits.iter().flat_map(|exploit| [&exploit.target, &exploit.clone]);
    tags.filter(|tag| seen.insert(tag.as_str())).cloned().collect()
}

/// The tag of a trial.
pub(super) fn tag<'a>(exploits: &'a [Exploit], trial: &str) -> Result<&'a str, ScheduleError> {
    let tags = || exploits.iter().flat_map(|exploit| [&*exploit.target, &*exploit.clone]);
    if let Some(tag) = tags().find(|tag| *tag == trial) {
        return Ok(tag);
    }
    let unknown = || ScheduleError::UnknownTrial { name: trial.to_owned(), known: trials_of(exploits) };
    let number = number(trial.rsplit('_').next().unwrap_or(trial)).ok_or_else(unknown)?;
    let mut found = tags().filter(|tag| self::number(tag.split('_').next().unwrap_or(tag)) == Some(number));
    let tag = found.next().ok_or_else(unknown)?;
    // Two tags of one number are of two runs.
    if found.all(|other| other == tag) { Ok(tag) } else { Err(unknown()) }
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The exploits that lead to the last one of a trial, oldest first.
fn lineage<'a>(exploits: &'a [Exploit], trial: &'a str) -> Vec<&'a Exploit> {
    let (mut lineage, mut member) = (Vec::new(), trial);
    for exploit in exploits.iter().rev() {
        if exploit.target == member {
            lineage.push(exploit);
            member = &exploit.clone;
        }
    }
    lineage.reverse();
    lineage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::exploits::tests::{line, outline};
    use crate::formats::reference;

    /// Four trials over two rounds and a half.
    fn log() -> String {
        [
            line("0", "3", 3, 0, 1),
            line("1", "2", 3, 0, 2),
            line("2", "1", 6, 2, 3),
            line("0", "1", 6, 2, 4),
            line("1", "0", 9, 4, 5),
        ]
        .concat()
    }

    #[track_caller]
    fn check(trial: &str, expected: &[(u32, u8)]) {
        assert_eq!(outline(&read(&log(), trial, "log", 12).unwrap()), expected, "{trial}");
    }

    #[test]
    fn the_lineage_of_each_trial_is_rebuilt() {
        // 1 copied 0, which had copied 1 as it was after it had copied 2, whose own exploit came later.
        check("1", &[(3, 0), (3, 2), (3, 4), (3, 5)]);
        check("0", &[(3, 0), (3, 2), (6, 4)]);
        check("2", &[(3, 0), (3, 2), (6, 3)]);
        // It copied none, and was copied.
        check("3", &[(12, 0)]);
    }

    /// Logs of trials, kept as Ray keeps them: a copy of the other's, if it has one, then the line.
    #[test]
    fn it_is_what_the_trials_own_log_says() {
        let mut logs = std::collections::HashMap::<String, String>::new();
        for (text, exploit) in log().lines().zip(exploits(&log()).unwrap()) {
            let history = logs.get(&exploit.clone).or(logs.get(&exploit.target)).cloned();
            logs.insert(exploit.target, format!("{}{text}\n", history.unwrap_or_default()));
        }
        assert_eq!(logs.len(), 3);
        for (trial, own) in logs {
            let expected = reference::read(&own, "log", 12).unwrap();
            assert_eq!(read(&log(), &trial, "log", 12), Ok(expected), "{trial}");
        }
    }

    #[test]
    fn a_trial_is_named_by_tag_number_or_id() {
        let log = line("3_lr=0.1", "00004_lr=0.2", 3, 0, 1);
        for (trial, expected) in [
            ("3_lr=0.1", &[(3, 0), (2, 1)][..]),
            ("3", &[(3, 0), (2, 1)]),
            ("a1b2c_00003", &[(3, 0), (2, 1)]),
            ("4", &[(5, 0)]),
        ] {
            assert_eq!(outline(&read(&log, trial, "log", 5).unwrap()), expected, "{trial}");
        }
        for trial in ["5", "", "lr", "lr=0.1", "3_lr", "99999999999999999999999"] {
            let error = read(&log, trial, "log", 5).unwrap_err().to_string();
            let says =
                format!("there is no trial {trial:?} in the log; its trials are 3_lr=0.1, 00004_lr=0.2");
            assert!(error.starts_with(&says), "{error}");
        }
        let twice = log + &line("3_lr=0.5", "9", 4, 0, 1);
        assert!(read(&twice, "3", "log", 5).is_err(), "two trials have this number");
        assert!(read(&twice, "3_lr=0.5", "log", 5).is_ok());
    }

    #[track_caller]
    fn refuse(log: &str, says: &str) {
        let error = read(log, "1", "log", 8).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_logs_are_refused_by_line() {
        refuse("", "no exploit");
        refuse(&(line("1", "2", 3, 0, 1) + "[1]"), "line 2: a list of 1 entries");
        let other = line("2", "0", 3, 0, 1) + &line("1", "2", 6, 2, 3);
        refuse(&other, "line 2: \"2\" was copied with another policy than it got in line 1");
        // Without a line of 0 in between, also where it is another that copied it.
        let lost = line("1", "0", 3, 0, 1) + &line("1", "0", 6, 5, 2);
        refuse(&lost, "line 2: \"0\" was copied with another policy than it was copied with in line 1");
        let lost = line("1", "0", 3, 5, 1) + &line("2", "0", 3, 6, 2);
        refuse(&lost, "line 2: \"0\" was copied with another policy than it was copied with in line 1");
        let back = line("2", "0", 6, 0, 1) + &line("1", "2", 3, 1, 3);
        refuse(&back, "line 2: exploit at epoch 3; along the lineage epochs increase, here from 6");
        refuse(&line("1", "2", 8, 0, 1), "line 1: exploit at epoch 8");
        let many: String = (0..100).map(|trial| line(&format!("a{trial}"), "0", 3, 0, 1)).collect();
        refuse(&many, "a30 and 69 more");
    }
}
