//! Answers in JSON, whose memory is reserved before they are written.

use std::io::{self, ErrorKind, Write};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::{Cause, Error};
use crate::http::{SMALL_ANSWER_BYTES, charged};
use crate::stream::engine::Engine;

/// Room for what an answer may have grown by after it was counted, as that about a job which runs.
const GROWTH_BYTES: u64 = 64 << 10;

/// A list under a name. Its elements are made while it is written, one at a time.
pub(super) struct List<'a, F> {
    pub(super) name: &'a str,
    pub(super) elements: F,
}

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for List<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.name, &Elements(&self.elements))?;
        map.end()
    }
}

struct Elements<'a, F>(&'a F);

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Elements<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// Writes an answer. One that is not small is counted first, and written when it has its memory: of several that are
/// asked for at a time, each has all that it takes or nothing. Takes time, so it is done apart.
///
/// # Errors
/// When there is not enough memory left, or never could be.
pub(super) fn json(engine: &Engine, value: &impl Serialize) -> Result<Response, Error> {
    let most = engine.answer_bytes_max();
    let mut counted = Room::new(SMALL_ANSWER_BYTES, most);
    counted.write_json(value).map_err(|full| match full {
        None => {
            let detail = format!(
                "the answer takes more than {most} bytes; this server has as many for all answers, a quarter of its \
                 {} (memory_bytes_max)",
                engine.memory_bytes_max()
            );
            Error::new(Cause::TooLarge, detail)
        }
        Some(error) => error,
    })?;
    if counted.count <= SMALL_ANSWER_BYTES {
        return Ok(response(counted.kept.into()));
    }
    let bytes = (counted.count + GROWTH_BYTES).min(most);
    let memory = engine.memory_for_answer(bytes)?;
    let mut room = Room::new(bytes, bytes);
    room.kept.reserve_exact(bytes as usize);
    room.write_json(value).map_err(|full| {
        full.unwrap_or_else(|| Error::new(Cause::Memory, "the answer grew while it was written; try again"))
    })?;
    let (mark, body) = charged(room.kept, memory);
    Ok((mark, response(body)).into_response())
}

fn response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Counts what is written, and keeps it as long as it is short.
struct Room {
    kept: Vec<u8>,
    kept_max: u64,
    count: u64,
    count_max: u64,
}

impl Room {
    fn new(kept_max: u64, count_max: u64) -> Room {
        Room { kept: Vec::new(), kept_max, count: 0, count_max }
    }

    /// Writes a value; fails with no error when it is too long.
    fn write_json(&mut self, value: &impl Serialize) -> Result<(), Option<Error>> {
        serde_json::to_writer(self, value).map_err(|error| (!error.is_io()).then(|| Error::internal(error)))
    }
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count += bytes.len() as u64;
        if self.count > self.count_max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        match self.count <= self.kept_max {
            true => self.kept.extend_from_slice(bytes),
            false => self.kept = Vec::new(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::config::{Config, ServeArgs};
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_list_has_its_memory_before_it_is_made_or_is_refused() {
        let mut limits = Config::resolve(&ServeArgs::default()).unwrap().limits;
        limits.memory_bytes_max = 16 << 20;
        let engine = Engine::start(limits, Metrics::new().unwrap()).unwrap();
        let taken = || engine.metrics.memory_in_flight_bytes.get();
        let list = |count: usize| {
            let elements = move || (0..count).map(|_| "x".repeat(1021));
            json(&engine, &List { name: "all", elements })
        };
        let small = list(3).unwrap();
        assert_eq!((small.status(), taken()), (StatusCode::OK, 0));
        let body = axum::body::to_bytes(small.into_body(), usize::MAX).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["all"][2], "x".repeat(1021));
        // A quarter of all is for answers.
        let large = list(3000).unwrap();
        assert!((3_072_000..3_300_000).contains(&taken()), "{}", taken());
        assert_eq!(list(2000).unwrap_err().cause, Cause::Memory);
        assert_eq!(list(5000).unwrap_err().cause, Cause::TooLarge);
        let body = axum::body::to_bytes(large.into_body(), usize::MAX).await.unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        drop(body);
        assert_eq!(taken(), 0);
        assert!(list(2000).is_ok());
    }
}
