//! Server-sent events of a job.

use std::time::Duration;

use pba_wire::checksum::{self, Sum};
use pba_wire::jobs::{JobStanding, MISSING, Missing, STATE};
use pba_wire::problem;
use reqwest::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::address::{Request, segment};
use crate::error::ClientError;
use crate::replica::check_header;
use crate::replicas::Replicas;

/// Attempts to reconnect before giving up.
const ATTEMPTS_MAX: u32 = 8;
/// Pause before the second attempt; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of an event; a schedule is some tens of kilobytes.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Kind of the event that the client adds when it lost the connection and reconnects.
pub const RECONNECTING: &str = "reconnecting";

/// One event: `progress`, `state`, [`RECONNECTING`], or one of the job's journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its kind.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

impl Event {
    /// Its data, as the type of its kind.
    ///
    /// # Errors
    /// When the data is not of this type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        T::deserialize(&self.data)
            .map_err(|error| ClientError::Stream(format!("an invalid event {:?}: {error}", self.kind)))
    }
}

/// The events of one job, from its beginning. A broken connection resumes where it broke.
pub struct Events {
    replicas: Replicas,
    path: String,
    /// The checksum of the request and of the id that was sent with it.
    asked: Sum,
    replica: usize,
    response: Option<Response>,
    bytes: Vec<u8>,
    /// Id of the last event that had one.
    last_id: Option<String>,
    /// Whether a server has answered yet.
    connected: bool,
    /// Attempts since a complete event was read.
    attempts: u32,
    ended: bool,
}

impl Events {
    pub(crate) fn new(replicas: Replicas, jobs: &str, id: &str) -> Events {
        let path = format!("/v1/{jobs}/{}/events", segment(id));
        Events {
            replicas,
            asked: asked(&path, None),
            path,
            replica: 0,
            response: None,
            bytes: Vec::new(),
            last_id: None,
            connected: false,
            attempts: 0,
            ended: false,
        }
    }

    /// The next event; none when the job has ended.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached for a while.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            let taken = self.take();
            if let Ok(Some(event)) = taken {
                self.ended = event.kind == STATE
                    && event.read().is_ok_and(|JobStanding { state, .. }| state.is_final());
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            if self.response.is_none() && self.attempts > 0 {
                tokio::time::sleep(PAUSE * 2u32.pow(self.attempts - 1)).await;
            }
            let read = match taken {
                Ok(_) => self.read().await,
                Err(damaged) => Err(damaged),
            };
            let failure = match read {
                Ok(()) => continue,
                // A busy one was restarted, and opens its datasets; one that does not host the jobs may take over.
                Err(error)
                    if error.is_passing() || error.is_busy() || is_no_host(&error) || is_altered(&error) =>
                {
                    error
                }
                Err(error) => return Err(error),
            };
            self.response = None;
            self.bytes.clear();
            self.attempts += 1;
            // A server that never answered is not one that is being restarted.
            let waits = failure.is_busy() && !is_no_host(&failure);
            let never = !self.connected && !waits && self.attempts >= self.replicas.count();
            if never || self.attempts > ATTEMPTS_MAX {
                return Err(failure);
            }
            self.replica += 1;
            if self.attempts == 1 {
                let data = Value::String(failure.to_string());
                return Ok(Some(Event { kind: RECONNECTING.to_owned(), data }));
            }
        }
    }

    /// Reads some bytes, connecting first if necessary.
    async fn read(&mut self) -> Result<(), ClientError> {
        let replica = self.replicas.at(self.replica);
        let response = match &mut self.response {
            Some(response) => response,
            none => {
                let response = replica.events(&self.path, self.last_id.as_deref()).await?;
                self.asked = asked(&self.path, self.last_id.as_deref());
                self.connected = true;
                none.insert(response)
            }
        };
        let broken = |error| replica.address.unanswered(Request::get(&self.path), &error);
        let Some(chunk) = response.chunk().await.map_err(broken)? else {
            return Err(ClientError::Stream("the events ended before the job".to_owned()));
        };
        self.bytes.extend_from_slice(&chunk);
        if self.bytes.len() > LINE_BYTES_MAX {
            return Err(ClientError::Stream("an event that does not end".to_owned()));
        }
        Ok(())
    }

    /// Takes the first complete event: fields, one per line, up to an empty line.
    ///
    /// # Errors
    /// When it is not as it was sent.
    fn take(&mut self) -> Result<Option<Event>, ClientError> {
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let text: Vec<u8> = self.bytes.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&text);
            let (mut id, mut kind, mut data, mut sum) = (None, "", String::new(), None);
            for line in text.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => kind = value,
                    "data" => data.push_str(value),
                    "id" => id = Some(value),
                    "" => sum = sum.or(value.strip_prefix(checksum::EVENT_COMMENT)),
                    _ => {}
                }
            }
            // A comment alone keeps the connection alive.
            if sum.is_none() && text.lines().all(|line| line.is_empty() || line.starts_with(':')) {
                continue;
            }
            let expected = checksum::of_event(id.unwrap_or_default(), kind, &data, self.asked);
            check_header("comment pba-event", sum, expected, "an event was damaged on its way").map_err(
                |reason| self.replicas.at(self.replica).address.otherwise(Request::get(&self.path), reason),
            )?;
            let data = serde_json::from_str(&data)
                .map_err(|error| ClientError::Stream(format!("an invalid event {kind:?}: {error}")))?;
            if let Some(id) = id {
                if !follows(self.last_id.as_deref(), id, kind, &data) {
                    let last = self.last_id.as_deref().unwrap_or("none");
                    let reason =
                        format!("event {id:?} came after {last:?}: others are missing, or it came twice");
                    return Err(self
                        .replicas
                        .at(self.replica)
                        .address
                        .otherwise(Request::get(&self.path), reason));
                }
                self.last_id = Some(id.to_owned());
            }
            // A complete event shows that the server is up.
            self.attempts = 0;
            return Ok(Some(Event { kind: kind.to_owned(), data }));
        }
        Ok(None)
    }
}

/// The checksum of a request for the events after the one with an id.
fn asked(path: &str, last_id: Option<&str>) -> Sum {
    checksum::of_events(last_id.unwrap_or_default(), checksum::of_request("GET", path))
}

/// Whether an event is the next one of a journal, or tells of all that is missing before it. Ids are `LINE-TIME`; with
/// another time, the journal is that of another job of the same name, and begins.
fn follows(last: Option<&str>, id: &str, kind: &str, data: &Value) -> bool {
    let read = |id: &str| -> Option<(usize, Option<String>)> {
        let (line, time) =
            id.split_once('-').map_or((id, None), |(line, time)| (line, Some(time.to_owned())));
        Some((line.parse().ok()?, time))
    };
    let Some((line, time)) = read(id) else { return false };
    let seen = last.and_then(read).filter(|(_, of)| *of == time).map_or(0, |(line, _)| line);
    let first = match (kind, Missing::deserialize(data)) {
        (MISSING, Ok(missing)) if missing.last == line => missing.first,
        _ => line,
    };
    first == seen + 1 && line > seen
}

/// Whether a server refuses an id that is none of its own: it was changed on its way.
fn is_altered(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.parameter.as_deref() == Some("Last-Event-ID"))
}

/// Whether a server refuses as it does not host the jobs.
fn is_no_host(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.status == 409 || problem.kind == problem::READ_ONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ClientOptions;

    fn events() -> Events {
        let replicas = Replicas::new(["http://127.0.0.1:1"], &ClientOptions::default()).unwrap();
        Events::new(replicas, "searches", "x")
    }

    /// One as a server writes it.
    fn event(id: &str, kind: &str, data: &str) -> String {
        let sum = checksum::of_event(id, kind, data, events().asked);
        let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
        format!(": pba-event {sum}\nevent: {kind}\ndata: {data}\n{id}\n")
    }

    #[test]
    fn events_are_parsed_however_they_are_cut() {
        let text = format!(":\n\n{}{}", event("1-7", "scored", "{\"epoch\":6}"), event("", "progress", "{}"));
        for cut in 0..text.len() {
            let mut events = events();
            let mut kinds = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                events.bytes.extend_from_slice(part.as_bytes());
                kinds.extend(std::iter::from_fn(|| events.take().unwrap()).map(|event| event.kind));
            }
            assert_eq!(
                (kinds, events.last_id.as_deref()),
                (vec!["scored".to_owned(), "progress".to_owned()], Some("1-7"))
            );
        }
    }

    /// Whatever bit is flipped: what is told is what was sent, and the first event that is not ends the connection.
    #[test]
    fn no_flipped_bit_is_told() {
        let sent =
            [("1-7", "scored", "{\"epoch\":6}"), ("", "progress", "{\"epoch\":7}"), ("2-7", "scored", "{}")];
        let text: String = sent.map(|(id, kind, data)| event(id, kind, data)).concat();
        let told = |bytes: Vec<u8>| {
            let (mut events, mut told) = (events(), Vec::new());
            events.bytes = bytes;
            loop {
                match events.take() {
                    Ok(Some(event)) => told.push(event),
                    Ok(None) => return (told, events.last_id, !events.bytes.is_empty()),
                    Err(_) => return (told, events.last_id, true),
                }
            }
        };
        let (whole, _, is_broken) = told(text.clone().into_bytes());
        assert_eq!((whole.len(), is_broken), (3, false));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (some, last, is_broken) = told(bytes);
            assert!(is_broken, "bit {bit} is not noticed");
            assert_eq!(some, whole[..some.len()], "bit {bit}");
            assert_eq!(last.as_deref(), (!some.is_empty()).then_some("1-7"), "bit {bit}");
        }
    }

    #[test]
    fn no_line_is_left_out_or_told_twice() {
        let next = |last: &str, id: &str| follows(Some(last), id, "scored", &Value::Null);
        assert!(
            follows(None, "1-7", "scored", &Value::Null) && !follows(None, "2-7", "scored", &Value::Null)
        );
        assert!(next("4-7", "5-7") && next("4-7", "1-8"), "another job of its name begins");
        for (last, id) in [("4-7", "6-7"), ("4-7", "4-7"), ("4-7", "3-7"), ("4-7", "5-8"), ("4-7", "x-7")] {
            assert!(!next(last, id), "{id} after {last}");
        }
        let missing = |first: usize, last: usize| serde_json::json!({ "first": first, "last": last });
        assert!(follows(Some("4-7"), "9-7", MISSING, &missing(5, 9)));
        assert!(!follows(Some("4-7"), "9-7", MISSING, &missing(6, 9)));
        assert!(!follows(Some("4-7"), "8-7", MISSING, &missing(5, 9)));
        assert!(!follows(Some("4-7"), "9-7", "scored", &missing(5, 9)));
    }
}
