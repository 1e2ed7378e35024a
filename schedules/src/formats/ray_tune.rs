//! Policy logs that Ray Tune's `PopulationBasedTrainingReplay` replays.
//!
//! A line for each change of the policy, as [`exploits`](super::exploits) describes them. The member copies itself, so that
//! each line leads to the next; the configuration is `{"policy": [60 integers]}` and nothing else.

use crate::error::ScheduleError;
use crate::op::Op;
use crate::policy::Policy;
use crate::schedule::Schedule;

/// What a schedule is refused as.
const FORMAT: &str = "a log that Ray Tune replays";

/// Writes a schedule as a policy log; it reads back as a schedule of the same digest ([`reference`](super::reference)).
///
/// # Errors
/// When a policy is no pair of levels for each of the paper's ops in their order, which is what 60 integers can say.
pub fn write(schedule: &Schedule) -> Result<String, ScheduleError> {
    let segments = schedule.segments();
    let levels = segments.iter().map(|segment| levels(&segment.policy)).collect::<Result<Vec<_>, _>>()?;
    let line = |epoch: u32, before: &[u8], after: &[u8]| {
        let [before, after] = [before, after].map(|levels| {
            let levels: Vec<String> = levels.iter().map(u8::to_string).collect();
            format!("{{\"policy\": [{}]}}", levels.join(", "))
        });
        format!("[\"0\", \"0\", {epoch}, {epoch}, {before}, {after}]\n")
    };
    let (mut text, mut epoch) = (String::new(), 0);
    for (at, pair) in levels.windows(2).enumerate() {
        epoch += segments[at].epochs;
        if pair[0] != pair[1] {
            text += &line(epoch, &pair[0], &pair[1]);
        }
    }
    if text.is_empty() {
        // A replay takes its first policy from a line, too. This one changes nothing, before the last epoch.
        text = line(schedule.epochs() - 1, &levels[0], &levels[0]);
    }
    Ok(text)
}

fn levels(policy: &Policy) -> Result<Vec<u8>, ScheduleError> {
    match policy.as_pairs() {
        Some(pairs) if pairs.ops().eq(Op::PAPER) => Ok(pairs.hyperparameters()),
        Some(_) => Err(ScheduleError::NotExpressible {
            format: FORMAT,
            reason: "its policies are over other ops than the paper's 15, and 60 integers are about these"
                .to_owned(),
        }),
        None => Err(ScheduleError::NotExpressible {
            format: FORMAT,
            reason: format!("a policy of family {:?} is not 60 integers", policy.family()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::reference;
    use crate::provenance::Provenance;
    use crate::schedule::Segment;
    use crate::{library, random_schedule};

    fn schedule(segments: &[(u32, u8)]) -> Schedule {
        let policy = |first| {
            let mut levels = vec![0; 60];
            levels[0] = first;
            Policy::from_hyperparameters(&Op::PAPER, &levels).unwrap()
        };
        let segments = segments.iter().map(|&(epochs, first)| Segment { epochs, policy: policy(first) });
        Schedule::new("mine", segments.collect(), Provenance::default()).unwrap()
    }

    /// What Ray does with a log: the policy after so many epochs, changed by at most one line after each.
    fn replayed(log: &str, epochs: u32) -> Vec<Vec<u8>> {
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let levels = |config: &serde_json::Value| -> Vec<u8> {
            serde_json::from_value(config["policy"].clone()).unwrap()
        };
        let (mut policy, mut next) = (levels(&lines[0][4]), lines.iter().peekable());
        (0..epochs)
            .map(|epoch| {
                if epoch > 0 && next.peek().is_some_and(|line| line[3].as_u64().unwrap() <= epoch.into()) {
                    policy = levels(&next.next().unwrap()[5]);
                }
                policy.clone()
            })
            .collect()
    }

    #[test]
    fn a_replay_has_the_policy_of_each_epoch_and_the_log_reads_back() {
        let mut schedules = vec![library::cifar10_pba(), library::svhn_pba(), random_schedule(3)];
        schedules.extend([
            schedule(&[(1, 1)]),
            schedule(&[(7, 1)]),
            schedule(&[(2, 1), (2, 1), (3, 1)]),
            schedule(&[(1, 1), (1, 2), (1, 3), (1, 3), (2, 4)]),
        ]);
        for schedule in schedules {
            let (log, epochs) = (write(&schedule).unwrap(), schedule.epochs());
            let expected: Vec<_> =
                (0..epochs).map(|epoch| schedule.at_search_epoch(epoch).hyperparameters()).collect();
            assert_eq!(replayed(&log, epochs), expected);
            assert_eq!(reference::read(&log, "mine", epochs).unwrap().digest(), schedule.digest());
        }
    }

    #[test]
    fn what_60_integers_cannot_say_is_refused() {
        let refuse = |schedule: &Schedule, says| {
            let error = write(schedule).unwrap_err().to_string();
            assert!(
                error.contains("cannot be written as a log that Ray Tune replays") && error.contains(says),
                "{error}"
            );
        };
        refuse(&library::named("randaugment:2:9").unwrap().unwrap(), "a policy of family \"rand-augment\"");
        let policy = Policy::zero(&[Op::Rotate]).unwrap();
        let rotate = Schedule::new("r", vec![Segment { epochs: 2, policy }], Provenance::default()).unwrap();
        refuse(&rotate, "other ops than the paper's 15");
    }
}
