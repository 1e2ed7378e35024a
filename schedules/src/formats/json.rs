//! Our own formats: JSON with named ops, readable in a diff.
//!
//! `pba-schedule/1` holds policies of pairs over one list of ops, `pba-schedule/2` policies of any
//! family. Both are read; what the first can hold is written as the first.
//!
//! ```json
//! { "format": "pba-schedule/1", "name": "cifar10-pba", "epochs": 200,
//!   "ops": ["Rotate", "TranslateX", "..."],
//!   "segments": [ { "epochs": 12, "policy": [[0, 0], [4, 9], "..."] } ],
//!   "provenance": { "source": "..." } }
//! ```
//!
//! Here a policy lists `[probability 0..10, magnitude 0..9]` per slot: every op once, then every op
//! again.
//!
//! ```json
//! { "format": "pba-schedule/2", "name": "cifar10-pba", "epochs": 200,
//!   "segments": [
//!     { "epochs": 12, "policy": { "family": "pairs", "ops": ["..."], "levels": [[0, 0], "..."] } } ],
//!   "provenance": { "source": "..." } }
//! ```
//!
//! Here a policy says its family; the other fields are the family's own:
//!
//! ```json
//! { "family": "sub-policies", "sub_policies": [ [["Invert", 1, null], ["Contrast", 2, 6]], "..." ] }
//! { "family": "rand-augment", "num_ops": 2, "magnitude": 9 }
//! { "family": "trivial-augment-wide" }
//! ```
//!
//! A sub-policy lists `[op, probability 0..10, magnitude 0..9]` of its two ops, with a magnitude of null
//! for an op that has none; RandAugment's magnitude is 0..30.
//!
//! A document may say its schedule's `digest`, by which damage is noticed; remove it when you edit the rest.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::ScheduleError;
use crate::formats::exploits::without_mark;
use crate::policy::Policy;
use crate::policy::pairs::{Pairs, RawPairs};
use crate::provenance::Provenance;
use crate::schedule::{Schedule, Segment, pairs};

const V1: &str = "pba-schedule/1";
const V2: &str = "pba-schedule/2";

/// What a document says of its format.
#[derive(Deserialize)]
struct Head {
    format: String,
}

/// What every policy of a `pba-schedule/2` document says.
#[derive(Deserialize)]
struct Family {
    family: String,
}

/// A `pba-schedule/1` document as it stands in the file, before anything is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document1 {
    #[serde(rename = "format")]
    _format: String,
    name: String,
    epochs: u64,
    digest: Option<String>,
    ops: Vec<String>,
    segments: Vec<RawSegment<Vec<[i64; 2]>>>,
    #[serde(default)]
    provenance: Provenance,
}

/// A `pba-schedule/2` document as it stands in the file, before anything is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document2<'a> {
    #[serde(rename = "format")]
    _format: String,
    name: String,
    epochs: u64,
    digest: Option<String>,
    /// The policies as text: what they hold is their families'.
    #[serde(borrow)]
    segments: Vec<RawSegment<&'a RawValue>>,
    #[serde(default)]
    provenance: Provenance,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSegment<P> {
    epochs: u64,
    policy: P,
}

#[derive(Serialize)]
struct RawPolicy {
    family: &'static str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Reads a `pba-schedule/1` or `pba-schedule/2` document.
///
/// # Errors
/// When the text is neither, or the schedule in it is wrong.
pub fn read(text: &str) -> Result<Schedule, ScheduleError> {
    let text = without_mark(text);
    let Head { format } = parse("pba-schedule", text)?;
    let (schedule, digest) = match format.as_str() {
        V1 => {
            let document: Document1 = parse(V1, text)?;
            let ops = document.ops;
            let policy = |levels| Pairs::try_from(RawPairs { ops: ops.clone(), levels }).map(Policy::Pairs);
            let Document1 { name, epochs, segments, provenance, .. } = document;
            (schedule(name, epochs, segments, policy, provenance)?, document.digest)
        }
        V2 => {
            let document: Document2<'_> = parse(V2, text)?;
            let policy = |raw: &RawValue| {
                let Family { family } = parse(V2, raw.get())?;
                Policy::from_json(&family, raw.get())
            };
            let Document2 { name, epochs, segments, provenance, .. } = document;
            (schedule(name, epochs, segments, policy, provenance)?, document.digest)
        }
        _ => {
            let reason = format!("format is {format:?}; allowed are {V1} and {V2}");
            return Err(ScheduleError::Json { format: "pba-schedule", reason });
        }
    };
    match digest {
        Some(said) if said != schedule.digest().to_string() => {
            Err(ScheduleError::Digest { said, found: schedule.digest() })
        }
        _ => Ok(schedule),
    }
}

fn parse<'a, T: Deserialize<'a>>(format: &'static str, text: &'a str) -> Result<T, ScheduleError> {
    serde_json::from_str(text).map_err(|error| ScheduleError::Json { format, reason: error.to_string() })
}

/// The schedule of a document, which reads its policies.
fn schedule<P>(
    name: String,
    epochs: u64,
    segments: Vec<RawSegment<P>>,
    policy: impl Fn(P) -> Result<Policy, ScheduleError>,
    provenance: Provenance,
) -> Result<Schedule, ScheduleError> {
    let segments = segments.into_iter().enumerate().map(|(position, raw)| {
        let epochs = u32::try_from(raw.epochs)
            .map_err(|_| ScheduleError::EmptySegment { position, epochs: raw.epochs })?;
        Ok(Segment { epochs, policy: policy(raw.policy)? })
    });
    let schedule = Schedule::new(name, segments.collect::<Result<Vec<_>, ScheduleError>>()?, provenance)?;
    if u64::from(schedule.epochs()) != epochs {
        return Err(ScheduleError::EpochSum { sum: schedule.epochs().into(), epochs });
    }
    Ok(schedule)
}

/// Writes a schedule as a `pba-schedule/1` document, or as a `pba-schedule/2` document where it holds
/// a policy of another family than pairs; one segment's policy a line.
pub fn write(schedule: &Schedule) -> String {
    document(schedule, "")
}

/// The same with the schedule's digest, so that a reader notices damage.
pub fn write_with_digest(schedule: &Schedule) -> String {
    document(schedule, &format!("  \"digest\": \"{}\",\n", schedule.digest()))
}

fn document(schedule: &Schedule, digest: &str) -> String {
    let (format, ops) = match pairs(schedule.segments()) {
        Some(pairs) => (V1, format!("  \"ops\": {},\n", text(&pairs[0].ops().collect::<Vec<_>>()))),
        None => (V2, String::new()),
    };
    let policy = |policy: &Policy| match policy.as_pairs() {
        Some(pairs) if format == V1 => {
            let slots = pairs.slots().iter().map(|slot| format!("[{},{}]", slot.probability, slot.magnitude));
            format!("[{}]", slots.collect::<Vec<_>>().join(", "))
        }
        _ => text(&RawPolicy { family: policy.family(), fields: policy.fields() }),
    };
    let segments: Vec<String> = schedule
        .segments()
        .iter()
        .map(|segment| {
            format!("    {{ \"epochs\": {}, \"policy\": {} }}", segment.epochs, policy(&segment.policy))
        })
        .collect();
    format!(
        "{{\n  \"format\": {},\n  \"name\": {},\n  \"epochs\": {},\n{digest}{ops}  \
         \"segments\": [\n{}\n  ],\n  \"provenance\": {}\n}}\n",
        text(format),
        text(schedule.name()),
        schedule.epochs(),
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

    fn published() -> serde_json::Value {
        serde_json::from_str(&write(&crate::library::cifar10_pba())).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        for schedule in [crate::library::cifar10_pba(), crate::library::svhn_pba()] {
            assert_eq!(read(&write(&schedule)).unwrap(), schedule);
        }
    }

    /// Where a schedule comes from is kept to the last field, and changes no pixel.
    #[test]
    fn provenance_is_kept_and_is_no_part_of_the_digest() {
        let mut document = published();
        document["provenance"] = serde_json::json!({
            "dataset": "mine", "model": "tiny", "population": 8, "seed": u64::MAX, "score": 0.925,
            "created": "2026-01-01T00:00:00Z", "source": "a search", "note": {"by": ["me"]},
        });
        let schedule = read(&document.to_string()).unwrap();
        let written: serde_json::Value = serde_json::from_str(&write(&schedule)).unwrap();
        assert_eq!(written, document);
        assert_eq!(schedule.digest(), crate::library::cifar10_pba().digest());
        assert_eq!((schedule.provenance.seed, schedule.provenance.score), (Some(u64::MAX), Some(0.925)));
    }

    #[test]
    fn a_digest_is_compared() {
        for schedule in crate::library::all() {
            let text = write_with_digest(&schedule);
            assert_eq!(read(&text).unwrap(), schedule);
            let damaged = text.replacen("\"epochs\": 1", "\"epochs\": 2", 1);
            let damaged = damaged.replacen(&schedule.digest().to_string(), &"0".repeat(64), 1);
            assert!(read(&damaged).is_err(), "{}", schedule.name());
        }
        refuse(|d| d["digest"] = "0".repeat(64).into(), "says that its digest is 000");
        // A bit of a level: another policy, and as well formed.
        let text = write_with_digest(&crate::library::cifar10_pba());
        let place = text.rfind("],[").or(text.rfind("], [")).unwrap() - 1;
        let flipped =
            format!("{}{}{}", &text[..place], (text.as_bytes()[place] ^ 1) as char, &text[place + 1..]);
        assert!(read(&flipped).is_err_and(|error| error.to_string().contains("digest")), "{flipped}");
    }

    #[track_caller]
    fn refuse(change: impl FnOnce(&mut serde_json::Value), says: &str) {
        let mut document = published();
        change(&mut document);
        let error = read(&document.to_string()).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_documents_are_refused_by_name() {
        refuse(|d| d["format"] = "pba-schedule/3".into(), "pba-schedule/3");
        refuse(
            |d| d["format"] = "pba-schedule/2".into(),
            "not a pba-schedule/2 document: unknown field `ops`",
        );
        refuse(|d| d["ops"][3] = "Blur".into(), "unknown op \"Blur\"");
        refuse(|d| d["ops"][3] = "Rotate".into(), "Rotate is listed twice");
        refuse(|d| d["epochs"] = 199.into(), "last 200 epochs, the schedule says 199");
        refuse(|d| d["segments"][2]["policy"][0] = serde_json::json!([11, 0]), "probability 11 of Rotate");
        refuse(|d| d["segments"][2]["policy"][0] = serde_json::json!([-1, 0]), "\"-1\"");
        refuse(|d| d["segments"][2]["epochs"] = 0.into(), "segment 2 lasts 0 epochs");
        refuse(|d| d["segment"] = 0.into(), "segment");
        refuse(|d| d["segments"] = serde_json::json!([]), "at least one segment");
    }

    /// The library's schedule for CIFAR-10, as a document of the second version would hold it.
    fn document_2() -> serde_json::Value {
        let mut document = published();
        document["format"] = V2.into();
        let ops = document.as_object_mut().unwrap().remove("ops").unwrap();
        for segment in document["segments"].as_array_mut().unwrap() {
            let levels = segment["policy"].take();
            segment["policy"] = serde_json::json!({ "family": "pairs", "ops": ops, "levels": levels });
        }
        document
    }

    #[test]
    fn pairs_mean_the_same_in_either_version() {
        let schedule = read(&document_2().to_string()).unwrap();
        assert_eq!(schedule, crate::library::cifar10_pba());
        assert_eq!(schedule.digest(), crate::library::cifar10_pba().digest());
        assert_eq!(write(&schedule), write(&crate::library::cifar10_pba()), "as the first version");
        let policy = &schedule.segments()[3].policy;
        let text = text(&RawPolicy { family: policy.family(), fields: policy.fields() });
        assert_eq!(Policy::from_json(policy.family(), &text).as_ref(), Ok(policy));
    }

    #[test]
    fn wrong_policies_are_refused_by_family() {
        let refuse = |change: fn(&mut serde_json::Value), says| {
            let mut document = document_2();
            change(&mut document["segments"][2]["policy"]);
            let error = read(&document.to_string()).unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        };
        refuse(
            |p| p["family"] = "triples".into(),
            "unknown family \"triples\" of policies; the families are pairs",
        );
        refuse(|p| p["level"] = 1.into(), "not a policy of family \"pairs\": unknown field `level`");
        refuse(|p| p["levels"][1] = serde_json::json!([0, 10]), "magnitude 10 of TranslateX");
        refuse(|p| p["ops"][1] = "Blur".into(), "unknown op \"Blur\"");
        refuse(|p| p["ops"].as_array_mut().unwrap().reverse(), "segment 2 is over other ops");
        refuse(|p| *p = serde_json::json!([[0, 0]]), "not a pba-schedule/2 document");
        refuse(
            |p| *p = serde_json::json!({"family": "sub-policies", "sub_policies": [[["Blur", 1, 1], ["Invert", 1, null]]]}),
            "unknown op \"Blur\"",
        );
        refuse(
            |p| *p = serde_json::json!({"family": "sub-policies", "sub_policies": [[["Invert", 1, null]]]}),
            "not a policy of family \"sub-policies\": invalid length 1",
        );
        refuse(
            |p| *p = serde_json::json!({"family": "rand-augment", "num_ops": 9, "magnitude": 9}),
            "\"randaugment:9:9\" is not a policy of RandAugment; allowed are randaugment:N:M with N, the ops of an image, in 1..=8",
        );
        refuse(
            |p| *p = serde_json::json!({"family": "trivial-augment-wide", "bins": 31}),
            "not a policy of family \"trivial-augment-wide\": unknown field `bins`",
        );
    }

    /// Segments of several families in one document, and what affects pixels of each.
    #[test]
    fn any_family_reads_back() {
        let mut document = document_2();
        let policies = [
            serde_json::json!({"family": "sub-policies", "sub_policies": [[["Invert", 1, null], ["Contrast", 2, 6]]]}),
            serde_json::json!({"family": "rand-augment", "num_ops": 2, "magnitude": 9}),
            serde_json::json!({"family": "trivial-augment-wide"}),
        ];
        let mut digests = Vec::new();
        for (segment, policy) in [(0, 0), (1, 1), (3, 2)] {
            document["segments"][segment]["policy"] = policies[policy].clone();
            let schedule = read(&document.to_string()).unwrap();
            assert_eq!(
                schedule.segments()[segment].policy.fields().len(),
                policies[policy].as_object().unwrap().len() - 1
            );
            assert_eq!(read(&write(&schedule)).unwrap(), schedule);
            assert!(write(&schedule).contains("pba-schedule/2"));
            assert!(!digests.contains(&schedule.digest()));
            digests.push(schedule.digest());
        }
        document["name"] = "randaugment:2:9".into();
        let error = read(&document.to_string()).unwrap_err().to_string();
        assert_eq!(error, "a schedule named \"randaugment:2:9\" holds another policy");
    }
}
