//! The journal of a run: what happened in it, one JSON object a line.
//!
//! It holds no clock and no machine, so an interrupted and an uninterrupted run of one spec
//! leave the same bytes. A run resumes at an event after which it [can](Run::can_resume_after), the last one
//! whose models are on disk: [`replay_to`] gives the state at it, and how many events led there; what
//! comes after is cut off, and happens again in the same way. [`replay`] is for readers.
//!
//! On disk each line also has its number and a checksum ([`kept`]):
//!
//! ```text
//! {"event":"checkpoint","epoch":3,"seq":5,"xxh3":"0f2f615f3cf4733d"}
//! ```
//!
//! [`read`] believes a file up to its first line that is not as it was written, and nothing after that, though
//! later lines may be whole: it cannot tell damage from the end of a file that never reached the disk, whose
//! pages a power failure leaves in any order. Nothing is lost by it but time, as what is cut off happens again in
//! the same way; whereas a journal with a hole would be another run.

use std::ops::Range;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use twox_hash::XxHash3_64;

use crate::comparison::ComparisonSpec;
use crate::fields::SpecError;
use crate::protocol::JobKind;
use crate::training::Spec;
use pba_schedules::Schedule;

/// One run of a kind of job: a fold of the events in its journal.
pub trait Run: Clone + Send + Sync + 'static {
    /// What kind of job it is.
    const JOB: &'static JobKind;
    /// What it is asked to do.
    type Spec: Spec;
    /// What happens in it. No event is named as a [`Report`](crate::protocol::Report), or `state`.
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// The run that an event begins, with the digest of its dataset; none for any other event.
    fn begin(event: &Self::Event) -> Option<(Self, &str)>;

    /// Moves on by one event.
    ///
    /// # Errors
    /// When the event cannot follow the ones before it; says why.
    fn apply(&mut self, event: &Self::Event) -> Result<(), String>;

    /// Whether a run can go on after an event, given the models as they are then.
    fn can_resume_after(_event: &Self::Event) -> bool {
        true
    }

    /// Whether its models begin anew where it stands, so that it can go on without any that were saved.
    fn begins_anew(&self) -> bool {
        self.epoch() == 0
    }

    /// What it was asked to do.
    fn spec(&self) -> &Self::Spec;

    /// Epochs that are finished.
    fn epoch(&self) -> u32;

    /// Whether it has the result that it was started for.
    fn is_complete(&self) -> bool;

    /// The schedule it learned, once it is complete; none if its kind learns none.
    fn schedule(&self) -> Option<&Schedule> {
        None
    }

    /// Why another job that is `asked` for cannot be, because of this one; `is_over` once this one has
    /// ended, `same_data` where both train on the same files.
    fn excludes(
        _run: Option<&Self>,
        _spec: &Self::Spec,
        _is_over: bool,
        _asked: &Self::Spec,
        _same_data: bool,
    ) -> Option<SpecError> {
        None
    }

    /// The comparison that a job is, or that follows it once it is done.
    fn comparison(_spec: &Self::Spec) -> Option<ComparisonSpec> {
        None
    }

    /// Its results so far, for the API. There is no run before it has begun; `is_done` once its schedule
    /// is registered.
    fn results(run: Option<&Self>, spec: &Self::Spec, is_done: bool) -> <Self::Spec as Spec>::Results;

    /// Takes from results what would mean something else, as these names of schedules are no longer those of the schedules
    /// that the job trained with.
    fn withhold(_results: &mut <Self::Spec as Spec>::Results, _changed: &[&str]) {}
}

/// An event as a line of the journal, with its line feed.
pub fn line(event: &impl Serialize) -> String {
    let mut line = serde_json::to_string(event).expect("an event is written as JSON");
    line.push('\n');
    line
}

/// Begins the checksum in a line on disk, whose hexadecimal digits and [`CHECKSUM_END`] follow.
const CHECKSUM: &str = ",\"xxh3\":\"";
const CHECKSUM_DIGITS: usize = 16;
const CHECKSUM_END: &str = "\"}";
/// Begins the number in a line on disk.
const SEQ: &str = ",\"seq\":";

/// The checksum of some bytes: XXH3 with 64 bits, as hexadecimal digits.
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytes))
}

/// The line on disk of an event, which is line `seq` of its journal, from 1.
///
/// The number tells of lines that are missing; the checksum is of all bytes before it.
pub fn kept(line: &str, seq: usize) -> String {
    let event = line.trim_end().strip_suffix('}').expect("an event is a JSON object");
    let numbered = format!("{event}{SEQ}{seq}");
    let checksum = checksum(numbered.as_bytes());
    format!("{numbered}{CHECKSUM}{checksum}{CHECKSUM_END}\n")
}

/// What a journal's file holds, up to the first line that is not as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The events as lines, as [`line`] writes them.
    pub text: String,
    /// Bytes of the file up to the end of each.
    pub ends: Vec<usize>,
    /// The complete line after them that is not as it was written. A last line without a line feed is no such
    /// line: it was being written when the process ended.
    pub damage: Option<JournalError>,
}

/// Reads the file of a journal.
///
/// Lines of older versions have neither number nor checksum. They may come before others, and not after.
pub fn read(bytes: &[u8]) -> Kept {
    let mut kept = Kept::default();
    let (mut end, mut is_numbered) = (0, false);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let seq = kept.ends.len() + 1;
        match event_in(line, seq, &mut is_numbered) {
            Ok(event) => {
                end += line.len() + 1;
                kept.text += &event;
                kept.text.push('\n');
                kept.ends.push(end);
            }
            Err(reason) => {
                kept.damage = Some(JournalError { line: seq, reason: reason.to_owned() });
                break;
            }
        }
    }
    kept
}

/// The event in a line on disk that should be line `seq`, as [`line`] writes it but for the line feed.
///
/// # Errors
/// When it is not as it was written.
pub fn event(line: &[u8], seq: usize) -> Result<String, JournalError> {
    event_in(line, seq, &mut false).map_err(|reason| JournalError { line: seq, reason: reason.to_owned() })
}

/// The event in a line on disk that should be line `seq`, without what [`kept`] added to it.
fn event_in(line: &[u8], seq: usize, is_numbered: &mut bool) -> Result<String, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not text")?;
    let Some(Range { start, end }) = checksum_in(line) else {
        // A name in a text would have its quotation marks escaped.
        if *is_numbered || line.contains(&SEQ[1..]) || line.contains(&CHECKSUM[1..]) {
            return Err("its checksum is missing");
        }
        serde_json::from_str::<IgnoredAny>(line).map_err(|_| "it is not JSON")?;
        return Ok(line.to_owned());
    };
    let numbered = &line[..start - CHECKSUM.len()];
    if line[start..end] != checksum(numbered.as_bytes()) {
        return Err("its checksum is wrong");
    }
    *is_numbered = true;
    let (event, number) = numbered.rsplit_once(SEQ).ok_or("it has no number")?;
    if number.parse() != Ok(seq) {
        return Err("lines before it are missing");
    }
    Ok(format!("{event}}}"))
}

/// Where the checksum of a line stands, if it has one.
fn checksum_in(line: &str) -> Option<Range<usize>> {
    let end = line.strip_suffix(CHECKSUM_END)?.len();
    let start = end.checked_sub(CHECKSUM_DIGITS)?;
    line.get(..start)?.ends_with(CHECKSUM).then_some(start..end)
}

/// What a journal tells: where its job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay<R> {
    /// The run, where it can resume, or done.
    pub run: R,
    /// Digest of the dataset that it began with.
    pub dataset_digest: String,
    /// Bytes of the text that led there. What follows them is to be cut off.
    pub bytes: usize,
    /// Events in those bytes.
    pub events: usize,
}

/// A journal that no run can have written, at its first wrong line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal: {reason}")]
pub struct JournalError {
    /// 1-based line number.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Replays a journal. `None` when it holds no complete line: nothing has happened yet.
///
/// A last line without a line feed was being written when the process ended, and is dropped.
///
/// # Errors
/// At a line that is not an event, or that cannot follow the lines before it.
pub fn replay<R: Run>(text: &str) -> Result<Option<Replay<R>>, JournalError> {
    replay_to(text, u32::MAX)
}

/// Replays a journal up to the last event at which the run has finished `epoch` epochs or fewer; all of it when
/// the run is complete.
///
/// # Errors
/// As [`replay`].
pub fn replay_to<R: Run>(text: &str, epoch: u32) -> Result<Option<Replay<R>>, JournalError> {
    let mut state: Option<(R, Replay<R>)> = None;
    let mut bytes = 0;
    for (position, line) in text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate() {
        let error = |reason: String| JournalError { line: position + 1, reason };
        let event: R::Event = serde_json::from_str(line).map_err(|reason| error(reason.to_string()))?;
        bytes += line.len();
        let Some((current, kept)) = &mut state else {
            let begun = R::begin(&event).ok_or_else(|| error(format!("{} begins otherwise", R::JOB.one)))?;
            let (run, dataset_digest) = (begun.0.clone(), begun.1.to_owned());
            state = Some((begun.0, Replay { run, dataset_digest, bytes, events: 1 }));
            continue;
        };
        current.apply(&event).map_err(error)?;
        if R::can_resume_after(&event) && (current.epoch() <= epoch || current.is_complete()) {
            kept.run = current.clone();
            (kept.bytes, kept.events) = (bytes, position + 1);
        }
    }
    Ok(state.map(|(_, kept)| kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [&str; 3] = [
        r#"{"event":"begun","of":"a \"seq\": 7"}"#,
        r#"{"event":"trained","score":0.25}"#,
        r#"{"event":"done"}"#,
    ];

    /// The file of a journal, whose first `old` lines are of an older version.
    fn file(old: usize) -> Vec<u8> {
        let line = |(at, event): (usize, &&str)| match at < old {
            true => format!("{event}\n"),
            false => kept(event, at + 1),
        };
        EVENTS.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    fn whole(events: usize) -> String {
        EVENTS[..events].iter().map(|event| format!("{event}\n")).collect()
    }

    #[test]
    fn a_line_is_json_with_its_number_and_checksum() {
        let line = kept(EVENTS[1], 12);
        assert_eq!(line, "{\"event\":\"trained\",\"score\":0.25,\"seq\":12,\"xxh3\":\"5f2d4458889f34ba\"}\n");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["seq"], &value["score"]), (&12.into(), &0.25.into()));
        let line = line.trim_end();
        assert_eq!(event(line.as_bytes(), 12).as_deref(), Ok(EVENTS[1]));
        let (line, reason) = (13, "lines before it are missing".to_owned());
        assert_eq!(event(kept(EVENTS[1], 12).trim_end().as_bytes(), 13), Err(JournalError { line, reason }));
    }

    #[test]
    fn journals_of_older_versions_and_those_that_they_began_are_read() {
        for old in 0..=3 {
            let Kept { text, ends, damage } = read(&file(old));
            assert_eq!((text, ends.last(), damage), (whole(3), Some(&file(old).len()), None));
        }
        // An older version that went on with a newer one's journal would not have numbered its lines.
        let mixed = [kept(EVENTS[0], 1), format!("{}\n", EVENTS[1])].concat();
        let Kept { text, damage, .. } = read(mixed.as_bytes());
        assert_eq!(
            (text, damage.unwrap().to_string()),
            (whole(1), "line 2 of the journal: its checksum is missing".into())
        );
    }

    /// Whatever happens to one byte, what is read is what was written, up to the line of that byte.
    #[test]
    fn every_flipped_bit_is_found() {
        let file = file(0);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                let line = file[..at].iter().filter(|&&byte| byte == b'\n').count();
                let Kept { text, ends, damage } = read(&damaged);
                assert_eq!((&text, ends.len()), (&whole(line), line), "bit {bit} of byte {at}");
                // Without its line feed the last line is one that was being written.
                assert_eq!(damage.is_none(), at == file.len() - 1, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_is_torn_zeroed_missing_or_repeated_is_found() {
        let (file, ends) = (file(0), read(&file(0)).ends);
        for cut in 0..file.len() {
            let lines = ends.iter().filter(|&&end| end <= cut).count();
            let torn = read(&file[..cut]);
            assert_eq!((torn.text, torn.damage), (whole(lines), None), "cut after {cut} bytes");
            let zeroed = [&file[..cut], &vec![0; file.len() - cut]].concat();
            assert_eq!(
                (read(&zeroed).text, read(&zeroed).damage),
                (whole(lines), None),
                "zeroes after {cut} bytes"
            );
        }
        let line = |at: usize| &file[at.checked_sub(1).map_or(0, |before| ends[before])..ends[at]];
        for (lines, good, reason) in [
            (&[0, 2][..], 1, "lines before it are missing"),
            (&[1, 2], 0, "lines before it are missing"),
            (&[0, 0, 1], 1, "lines before it are missing"),
        ] {
            let Kept { text, damage, .. } =
                read(&lines.iter().map(|&at| line(at)).collect::<Vec<_>>().concat());
            assert_eq!((text, damage.unwrap().reason.as_str()), (whole(good), reason), "{lines:?}");
        }
        let no_json = read(b"{\"event\":\"begun\"}\nx\n");
        assert_eq!((no_json.ends.len(), no_json.damage.unwrap().reason.as_str()), (1, "it is not JSON"));
    }
}
