//! Lineage logs, as Ray Tune's population based training writes them and the reference ships.
//!
//! One line per exploit:
//! `[target_tag, clone_tag, target_iteration, clone_iteration, clone_config, new_config]`.
//! The reference's two files are Python literals (single quotes) with bare lists of 60 integers
//! as configurations; Ray Tune writes JSON with objects whose key `hp_policy` holds that list.
//! Both are read.

use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ScheduleError;
use crate::op::Op;
use crate::policy::Policy;
use crate::provenance::Provenance;
use crate::schedule::{Schedule, Segment};

/// Entries of a line.
const ENTRIES: usize = 6;

struct Exploit {
    line: usize,
    target: String,
    clone: String,
    /// Epochs the cloned member had trained, over which the policy before held.
    epoch: u32,
    before: Policy,
    after: Policy,
}

/// Turns the lineage of a search of `epochs` epochs into a schedule.
///
/// The lineage is followed backwards from the last line: an earlier line belongs to it while its
/// target is the member that the later line cloned. The first policy holds until the epoch of
/// the lineage's first line; each line's new policy from its own epoch to the next line's; the last one to
/// the end.
///
/// # Errors
/// When a line is not an exploit, the epochs do not increase along the lineage, or they pass the
/// search's end.
pub fn read(text: &str, name: &str, epochs: u32) -> Result<Schedule, ScheduleError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let exploits =
        lines.map(|(index, line)| exploit(index + 1, line)).collect::<Result<Vec<_>, ScheduleError>>()?;
    let lineage = lineage(&exploits);
    let first = lineage
        .first()
        .ok_or_else(|| ScheduleError::Log { line: 1, reason: "the log holds no exploit".to_owned() })?;

    let mut segments = Vec::new();
    let mut start = 0;
    let mut policy = &first.before;
    for exploit in &lineage {
        if exploit.epoch < start || exploit.epoch >= epochs {
            return Err(ScheduleError::Log {
                line: exploit.line,
                reason: format!(
                    "exploit at epoch {}; along the lineage epochs increase, here from {start}, and stay below {epochs}",
                    exploit.epoch
                ),
            });
        }
        if exploit.epoch > start {
            segments.push(Segment { epochs: exploit.epoch - start, policy: policy.clone() });
        }
        (start, policy) = (exploit.epoch, &exploit.after);
    }
    segments.push(Segment { epochs: epochs - start, policy: policy.clone() });
    Schedule::new(name, segments, Provenance::default())
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

fn exploit(line: usize, text: &str) -> Result<Exploit, ScheduleError> {
    let wrong = |reason: String| ScheduleError::Log { line, reason };
    // The reference's literals hold no quote inside a string, so this is all that differs.
    let json = text.replace('\'', "\"");
    let entries: Entries<'_> =
        serde_json::from_str(&json).map_err(|error| wrong(format!("not a list: {error}")))?;
    let [target, clone, _, epoch, before, after] = &entries.first[..] else {
        return Err(wrong(format!("a list of {} entries; an exploit has 6", entries.count)));
    };
    let epoch = serde_json::from_str::<f64>(epoch.get())
        .ok()
        .filter(|epoch| epoch.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(epoch))
        .ok_or_else(|| wrong(format!("clone iteration {epoch} is not a count of epochs")))?;
    let policy = |config: &RawValue| -> Result<Policy, ScheduleError> {
        let text = config.get();
        let levels = match text.starts_with('{') {
            true => serde_json::from_str(text).map(|Config { hp_policy }| hp_policy),
            false => serde_json::from_str(text),
        };
        let levels: Vec<u8> =
            levels.map_err(|error| wrong(format!("a configuration is not a list of levels: {error}")))?;
        Policy::from_hyperparameters(&Op::PAPER, &levels).map_err(|error| wrong(error.to_string()))
    };
    Ok(Exploit {
        line,
        target: tag(target),
        clone: tag(clone),
        epoch: epoch as u32,
        before: policy(before)?,
        after: policy(after)?,
    })
}

/// A configuration of Ray Tune; its other fields are not the schedule's.
#[derive(serde::Deserialize)]
struct Config {
    hp_policy: Vec<u8>,
}

/// What a line lists, as text: values that were read would take many times as much memory.
struct Entries<'a> {
    /// All entries if they are as many as an exploit has, and otherwise none.
    first: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<'a>, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Entries { first: Vec::new(), count: 0 };
                while let Some(entry) = list.next_element()? {
                    entries.count += 1;
                    match entries.count {
                        ..=ENTRIES => entries.first.push(entry),
                        _ => entries.first.clear(),
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// Tags are strings in some logs and numbers in others.
fn tag(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log line with policies that can be told apart by their first level.
    fn line(target: &str, clone: &str, epoch: u32, before: u8, after: u8) -> String {
        let config = |first: u8| {
            let mut levels = vec![0; 60];
            levels[0] = first;
            format!("{levels:?}")
        };
        format!("['{target}', '{clone}', {epoch}, {epoch}, {}, {}]\n", config(before), config(after))
    }

    fn segments(log: &str, epochs: u32) -> Vec<(u32, u8)> {
        let schedule = read(log, "log", epochs).unwrap();
        schedule.segments().iter().map(|s| (s.epochs, s.policy.slots()[0].probability)).collect()
    }

    #[test]
    fn a_lineage_is_followed_backwards() {
        // 5 <- 6 does not lead to the end: 1 cloned 2, and 2's own line comes after it.
        let log = line("5", "6", 1, 9, 9) + &line("2", "7", 2, 1, 2) + &line("1", "2", 5, 2, 3);
        assert_eq!(segments(&log, 8), [(2, 1), (3, 2), (3, 3)]);
    }

    #[test]
    fn two_exploits_at_one_epoch_leave_no_empty_segment() {
        let log = line("2", "7", 3, 1, 2) + &line("1", "2", 3, 2, 3);
        assert_eq!(segments(&log, 4), [(3, 1), (1, 3)]);
    }

    #[test]
    fn ray_tune_objects_and_number_tags_are_read() {
        let config = |first: u8| {
            let mut levels = vec![0; 60];
            levels[0] = first;
            format!("{{\"lr\": 0.1, \"hp_policy\": {levels:?}}}")
        };
        let log = format!("[1, 2, 3, 3, {}, {}]", config(1), config(2));
        assert_eq!(segments(&log, 4), [(3, 1), (1, 2)]);
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
            refuse(&log, &format!("line 1: clone iteration {epoch} is not a count of epochs"));
        }
        refuse(&(line("2", "7", 5, 1, 2) + &line("1", "2", 4, 2, 3)), "line 2: exploit at epoch 4");
        refuse(&line("2", "7", 2, 11, 2), "probability 11");
    }
}
