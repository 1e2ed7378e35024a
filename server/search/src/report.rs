//! What a trainer tells beside the journal: where it runs, how far it is, why it ended.
//!
//! A trainer writes one JSON object a line on its standard output: the [events](Event) of the
//! journal as they happen, and reports, which hold clocks and machines and are not kept.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::spec::EvaluationSpec;

/// Something a trainer tells that is not part of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// A search goes on from its journal. The journal was cut to its first `events` lines; what
    /// followed happens again, and is told again.
    Resumed {
        /// Epochs that every member has trained.
        epoch: u32,
        /// Lines of the journal that stay.
        events: usize,
    },
    /// Where it runs.
    Device {
        /// `cpu` or `cuda:N`.
        device: String,
        /// How members share it.
        strategy: String,
        /// CPU threads.
        threads: usize,
    },
    /// An evaluation began.
    Evaluating {
        /// What it was asked to do, with every default filled in.
        spec: Box<EvaluationSpec>,
        /// Name of the schedule, or `none`.
        schedule: String,
        /// Digest of the schedule.
        schedule_digest: Option<String>,
        /// Digest of the dataset's content.
        dataset_digest: String,
    },
    /// How far it is; once a second.
    Progress(Progress),
    /// An evaluation ended.
    Evaluated {
        /// Epochs that were trained.
        epoch: u32,
        /// The split it was tested on: `test`, or `val` where there is no other.
        split: String,
        /// Images of that split.
        images: usize,
        /// Share of them that the model gets wrong; null when it diverged.
        test_error: Option<f64>,
        /// Mean loss over the last epoch; null when it diverged.
        train_loss: Option<f64>,
    },
    /// It was told to stop, and did.
    Interrupted,
    /// It cannot go on.
    Failed {
        /// Why, with its causes.
        error: String,
    },
}

/// How far a trainer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that every member has trained.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Share of the training that is done, 0..=1.
    pub fraction: f64,
    /// Images trained, over all members and from the start of the run.
    pub images: u64,
    /// Images trained per second by this process, scoring and saving included.
    pub images_per_second: f64,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// Seconds that it will take at this rate; null before the first step.
    pub seconds_left: Option<f64>,
    /// Memory in use on the GPU after the last epoch, by everyone; none on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_used_bytes: Option<u64>,
}

/// A line of a trainer's standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// An event of the journal.
    Event(Event),
    /// A report.
    Report(Report),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &Line, text: &str) {
        assert_eq!(serde_json::to_string(line).unwrap(), text);
        assert_eq!(&serde_json::from_str::<Line>(text).unwrap(), line);
    }

    #[test]
    fn lines_read_back() {
        check(&Line::Event(Event::Checkpoint { epoch: 3 }), r#"{"event":"checkpoint","epoch":3}"#);
        check(&Line::Report(Report::Interrupted), r#"{"event":"interrupted"}"#);
        check(
            &Line::Report(Report::Resumed { epoch: 6, events: 9 }),
            r#"{"event":"resumed","epoch":6,"events":9}"#,
        );
        let progress = Progress {
            epoch: 1,
            epochs: 4,
            fraction: 0.25,
            images: 128,
            images_per_second: 64.0,
            seconds: 2.0,
            seconds_left: None,
            gpu_memory_used_bytes: None,
        };
        check(
            &Line::Report(Report::Progress(progress)),
            r#"{"event":"progress","epoch":1,"epochs":4,"fraction":0.25,"images":128,"images_per_second":64.0,"seconds":2.0,"seconds_left":null}"#,
        );
        assert!(serde_json::from_str::<Line>(r#"{"event":"sung"}"#).is_err());
    }
}
