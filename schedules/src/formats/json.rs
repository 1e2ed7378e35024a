//! Our own format, `pba-schedule/1`: JSON with named ops, readable in a diff.
//!
//! ```json
//! { "format": "pba-schedule/1", "name": "cifar10-pba", "epochs": 200,
//!   "ops": ["Rotate", "TranslateX", "..."],
//!   "segments": [ { "epochs": 12, "policy": [[0, 0], [4, 9], "..."] } ],
//!   "provenance": { "source": "..." } }
//! ```
//!
//! A policy lists `[probability 0..10, magnitude 0..9]` per slot: every op once, then every op
//! again.

use serde::{Deserialize, Serialize};

use crate::error::ScheduleError;
use crate::op::Op;
use crate::policy::Policy;
use crate::schedule::{Provenance, Schedule, Segment};

/// The document as it stands in the file, before anything is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: Format,
    name: String,
    epochs: u64,
    ops: Vec<String>,
    segments: Vec<RawSegment>,
    #[serde(default)]
    provenance: Provenance,
}

#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "pba-schedule/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSegment {
    epochs: u64,
    policy: Vec<[i64; 2]>,
}

/// Reads a `pba-schedule/1` document.
///
/// # Errors
/// When the text is not such a document, or the schedule in it is wrong.
pub fn read(text: &str) -> Result<Schedule, ScheduleError> {
    let document: Document =
        serde_json::from_str(text).map_err(|error| ScheduleError::Json { reason: error.to_string() })?;
    let Format::V1 = document.format;
    let ops = document.ops.iter().map(|name| name.parse::<Op>()).collect::<Result<Vec<_>, _>>()?;
    let mut segments = Vec::with_capacity(document.segments.len());
    for (position, raw) in document.segments.iter().enumerate() {
        let epochs = u32::try_from(raw.epochs)
            .map_err(|_| ScheduleError::EmptySegment { position, epochs: raw.epochs })?;
        let levels = raw.policy.iter().flatten().map(|&level| {
            u8::try_from(level).map_err(|_| ScheduleError::NotALevel { value: level.to_string() })
        });
        let policy = Policy::from_hyperparameters(&ops, &levels.collect::<Result<Vec<_>, _>>()?)?;
        segments.push(Segment { epochs, policy });
    }
    let schedule = Schedule::new(document.name, segments, document.provenance)?;
    if u64::from(schedule.epochs()) != document.epochs {
        return Err(ScheduleError::EpochSum { sum: schedule.epochs().into(), epochs: document.epochs });
    }
    Ok(schedule)
}

/// Writes a schedule as a `pba-schedule/1` document, one segment's policy a line.
pub fn write(schedule: &Schedule) -> String {
    let ops: Vec<_> = schedule.segments()[0].policy.ops().map(Op::name).collect();
    let segments: Vec<String> = schedule
        .segments()
        .iter()
        .map(|segment| {
            let slots: Vec<_> = segment
                .policy
                .slots()
                .iter()
                .map(|slot| format!("[{},{}]", slot.probability, slot.magnitude))
                .collect();
            format!("    {{ \"epochs\": {}, \"policy\": [{}] }}", segment.epochs, slots.join(", "))
        })
        .collect();
    format!(
        "{{\n  \"format\": \"pba-schedule/1\",\n  \"name\": {},\n  \"epochs\": {},\n  \"ops\": {},\n  \
         \"segments\": [\n{}\n  ],\n  \"provenance\": {}\n}}\n",
        text(schedule.name()),
        schedule.epochs(),
        text(&ops),
        segments.join(",\n"),
        text(&schedule.provenance),
    )
}

fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> serde_json::Value {
        serde_json::from_str(&write(&crate::library::cifar10_pba())).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        for schedule in [crate::library::cifar10_pba(), crate::library::svhn_pba()] {
            assert_eq!(read(&write(&schedule)).unwrap(), schedule);
        }
    }

    #[track_caller]
    fn refuse(change: impl FnOnce(&mut serde_json::Value), says: &str) {
        let mut document = document();
        change(&mut document);
        let error = read(&document.to_string()).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_documents_are_refused_by_name() {
        refuse(|d| d["format"] = "pba-schedule/2".into(), "pba-schedule/2");
        refuse(|d| d["ops"][3] = "Blur".into(), "unknown op \"Blur\"");
        refuse(|d| d["ops"][3] = "Rotate".into(), "Rotate is listed twice");
        refuse(|d| d["epochs"] = 199.into(), "last 200 epochs, the schedule says 199");
        refuse(|d| d["segments"][2]["policy"][0] = serde_json::json!([11, 0]), "probability 11 of Rotate");
        refuse(|d| d["segments"][2]["policy"][0] = serde_json::json!([-1, 0]), "\"-1\"");
        refuse(|d| d["segments"][2]["epochs"] = 0.into(), "segment 2 lasts 0 epochs");
        refuse(|d| d["segment"] = 0.into(), "segment");
        refuse(|d| d["segments"] = serde_json::json!([]), "at least one segment");
    }
}
