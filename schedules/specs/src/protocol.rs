//! What the server and its trainer agree on: how a trainer is called, what it says, how it ends,
//! and what lies in the folder of a run.
//!
//! A trainer writes one JSON object a line on its standard output: the events of the
//! [journal](crate::journal) as they happen, and [reports](Report), which hold clocks and machines
//! and are not kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use pba_types::SplitName;
use serde::{Deserialize, Serialize};

use crate::fields::SpecError;
use crate::progress::{Progress, TrainingPlace};
use crate::training::DeviceChoice;

/// A kind of job, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct JobKind {
    /// In messages.
    pub name: &'static str,
    /// The same with its article.
    pub one: &'static str,
    /// In paths and folders.
    pub plural: &'static str,
    /// The sub-command, of the trainer and of `pba`.
    pub command: &'static str,
    /// What it ends with.
    pub result: &'static str,
    /// Whether that is a schedule, which is registered under the name of the job.
    pub learns: bool,
}

/// The flags of a trainer, without their dashes.
pub mod flags {
    /// The spec: a file, or [`STDIN`].
    pub const SPEC: &str = "spec";
    /// The dataset: `shapes`, a packed folder, or anything else that can be read.
    pub const DATASET: &str = "dataset";
    /// What the images of a split must be, `SPLIT=DIGEST`, once for each split that there was when the job was requested;
    /// `SPLIT=` for one that the server could not read, which is refused. Splits that are not named do not exist for the
    /// trainer; one that is named and gone cannot be read. Without this flag it uses all that there are.
    pub const DIGEST: &str = "digest";
    /// The folder that keeps datasets once they are decoded.
    pub const CACHE: &str = "cache";
    /// The folder of the run.
    pub const DIR: &str = "dir";
    /// Id of the process that starts the trainer.
    pub const PARENT: &str = "parent";
    /// The device that `auto` means, where it is not the first that there is.
    pub const AUTO: &str = "auto";
    /// Seconds from one save of the models to the next, at least.
    pub const SAVE_SECONDS: &str = "save-seconds";
    /// Only say whether it could start.
    pub const CHECK: &str = "check";
    /// The standard input, where a file is asked for.
    pub const STDIN: &str = "-";
}

/// The files in the folder of a run.
pub mod files {
    use std::path::{Path, PathBuf};

    /// The spec.
    pub const SPEC: &str = "spec.json";
    /// The journal.
    pub const JOURNAL: &str = "events.jsonl";
    /// The schedule that was learned.
    pub const SCHEDULE: &str = "schedule.json";
    /// The report of a comparison that is done, as Markdown.
    pub const REPORT: &str = "report.md";
    /// The folder of the schedules that are trained with.
    pub const SCHEDULES: &str = "schedules";

    /// The digests of the schedules that are trained with, by name, so that damage to one is noticed.
    pub const SCHEDULE_DIGESTS: &str = "schedule-digests.json";

    /// Where the schedule with a name may lie that is trained with, in the folder of a run: as it is written,
    /// and as it was written when a run had only one.
    pub fn schedules(dir: &Path, name: &str) -> [PathBuf; 2] {
        [dir.join(SCHEDULES).join(format!("{name}.json")), dir.join(SCHEDULE)]
    }

    /// There when the run was asked to end with the generation that it trains, until it is resumed. It holds the epochs
    /// that were finished by then, as decimal digits: a run that has to repeat some of them goes on beyond.
    pub const FINISH: &str = "finish";
    /// The same, before it is on disk for good: no trainer looks at it.
    pub const FINISH_ASKED: &str = "finish.asked";
    /// Locked, with the folder, while a trainer works there.
    pub const LOCK: &str = "lock";

    /// Most bytes of a journal that are read, many times those of the longest job.
    pub const JOURNAL_BYTES_MAX: u64 = 1 << 30;
}

/// How a trainer ends; 0 when it did what it was asked to.
pub mod exit {
    /// It failed; a run can be resumed once the reason is gone.
    pub const FAILED: u8 = 1;
    /// The spec or the command line is wrong.
    pub const WRONG_SPEC: u8 = 2;
    /// It was told to stop; the run can be resumed.
    pub const INTERRUPTED: u8 = 3;
    /// Its device failed; what a new process can do about it, it does.
    pub const CRASHED: u8 = 4;
    /// It failed because a disk is full.
    pub const DISK_FULL: u8 = 5;
    /// It failed because its dataset cannot be read, for the dataset's own fault.
    pub const BROKEN_DATASET: u8 = 6;
}

/// What a trainer is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Task<'a> {
    /// To say whether the spec on its standard input could be run.
    Check,
    /// To run the spec in a folder, or to go on with the run that is there.
    Run {
        /// The folder.
        dir: &'a Path,
        /// The process that starts it, with which it ends.
        parent: u32,
        /// The device that `auto` in the spec means; none leaves it to the trainer.
        auto: Option<DeviceChoice>,
        /// Seconds from one save of the models to the next; none leaves it to the trainer.
        save_seconds: Option<u32>,
    },
}

/// The sub-command that says what devices there are.
pub const DEVICES: &str = "devices";

/// What it says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Devices {
    /// The devices.
    pub devices: Vec<Device>,
}

/// A device that a trainer can train on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// As in a spec.
    pub device: String,
}

/// The images of a job.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// `shapes`, a packed folder, or anything else that can be read.
    pub dataset: &'a str,
    /// Its splits when the job was requested, each with its digest if it could be read: the trainer uses no others. Empty
    /// if that is not known.
    pub splits: &'a BTreeMap<SplitName, Option<String>>,
    /// The folder that keeps datasets once they are decoded.
    pub cache: &'a Path,
}

/// The command line of a trainer, without the program.
pub fn arguments(kind: &JobKind, task: Task<'_>, images: Images<'_>) -> Vec<OsString> {
    let flag = |name: &str| OsString::from(format!("--{name}"));
    let Images { dataset, splits, cache } = images;
    let mut arguments = vec![kind.command.into(), flag(flags::DATASET), dataset.into(), flag(flags::CACHE)];
    arguments.push(cache.into());
    for (split, digest) in splits {
        let digest = digest.as_deref().unwrap_or_default();
        arguments.extend([flag(flags::DIGEST), format!("{split}={digest}").into()]);
    }
    arguments.push(flag(flags::SPEC));
    match task {
        Task::Check => arguments.extend([flags::STDIN.into(), flag(flags::CHECK)]),
        Task::Run { dir, parent, auto, save_seconds } => {
            arguments.extend([
                dir.join(files::SPEC).into(),
                flag(flags::DIR),
                dir.into(),
                flag(flags::PARENT),
                parent.to_string().into(),
            ]);
            if let Some(device) = auto {
                arguments.extend([flag(flags::AUTO), device.to_string().into()]);
            }
            if let Some(seconds) = save_seconds {
                arguments.extend([flag(flags::SAVE_SECONDS), seconds.to_string().into()]);
            }
        }
    }
    arguments
}

/// Something a trainer tells that is not part of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// A run goes on from its journal. The journal was cut to its first `events` lines; what
    /// followed happens again, and is told again.
    Resumed {
        /// Epochs that are finished.
        epoch: u32,
        /// Lines of the journal that stay.
        events: usize,
    },
    /// Where it runs.
    Device(TrainingPlace),
    /// The models after an epoch, and all events up to there, are on disk: at worst, the run resumes here.
    Saved {
        /// Epochs that every model has trained.
        epoch: u32,
    },
    /// The models after an epoch were read from the disk: the run goes on with them. That may be in the middle of
    /// the generation after which it [resumed](Report::Resumed).
    Restored {
        /// Epochs that every model has trained.
        epoch: u32,
        /// Images trained in them, over all models.
        images: u64,
    },
    /// It cannot begin yet.
    Waits {
        /// What for.
        reason: String,
    },
    /// What this process spent its time on, in seconds; at the end of a search.
    Spent {
        /// Training.
        train: f64,
        /// Scoring.
        score: f64,
        /// Copying members, and taking what is to be saved.
        copy: f64,
    },
    /// How far it is; once a second.
    Progress(Progress),
    /// It was told to stop, and did.
    Interrupted,
    /// It cannot go on.
    Failed {
        /// Why, with its causes.
        error: String,
    },
}

/// A line of a trainer's standard output, where `E` is what happens in its kind of job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line<E> {
    /// An event of the journal.
    Event(E),
    /// A report.
    Report(Report),
    /// The spec is refused, before anything starts.
    Refused {
        /// Why.
        error: Refusal,
    },
}

/// A field of a spec that is wrong, in the trainer's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its name.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl From<&SpecError> for Refusal {
    fn from(error: &SpecError) -> Refusal {
        Refusal { field: error.field.clone(), message: error.to_string() }
    }
}

/// The name of an event: what a line of a journal calls it.
///
/// # Errors
/// When the line is no event.
pub fn event_name(line: &str) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Named {
        event: String,
    }
    serde_json::from_str::<Named>(line).map(|named| named.event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Evaluation, EvaluationEvent};
    use crate::journal::{Run, line};

    #[test]
    fn a_trainer_is_called_by_its_flags() {
        let words = |task| {
            let images = Images { dataset: "shapes", splits: &BTreeMap::new(), cache: Path::new("/cache") };
            let arguments = arguments(Evaluation::JOB, task, images);
            arguments.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let begin = "evaluate --dataset shapes --cache /cache --spec";
        assert_eq!(words(Task::Check), format!("{begin} - --check"));
        let run = |auto, save_seconds| Task::Run { dir: Path::new("/run"), parent: 7, auto, save_seconds };
        let plain = format!("{begin} /run/spec.json --dir /run --parent 7");
        assert_eq!(words(run(None, None)), plain);
        assert_eq!(words(run(Some(DeviceChoice::Cpu), None)), format!("{plain} --auto cpu"));
        assert_eq!(words(run(None, Some(9))), format!("{plain} --save-seconds 9"));
    }

    #[test]
    fn a_schedule_lies_in_a_folder_or_where_it_lay_before() {
        let places = files::schedules(Path::new("/run"), "mine").map(|path| path.into_os_string());
        assert_eq!(places, ["/run/schedules/mine.json", "/run/schedule.json"]);
    }

    #[test]
    fn a_refusal_names_the_field() {
        let refusal = Refusal::from(&SpecError::new("lr", 0, "above 0"));
        let (field, message) = ("lr".to_owned(), "lr is 0; allowed: above 0".to_owned());
        assert_eq!(refusal, Refusal { field, message });
    }

    #[test]
    fn events_are_told_by_name() {
        let trained = line(&EvaluationEvent::Trained { epoch: 1, train_loss: None });
        assert_eq!(event_name(&trained).unwrap(), "trained");
        assert!(event_name("{}").is_err());
    }
}
