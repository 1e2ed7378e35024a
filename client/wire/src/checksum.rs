//! Checksums of what travels: the messages of a stream, other answers, server-sent events, and requests.
//!
//! Each message of a plain stream carries a checksum: the schema in its metadata, a batch in the custom
//! metadata of its message, both under [`KEY`]. It is
//!
//! ```text
//! xxh3(body, seed = xxh3(head, seed = before) ^ number)
//! ```
//!
//! with XXH3 of 64 bits, the first version of which is stable for ever. The head is all that precedes the
//! body, from the mark and the length on, with [`UNSET`] where the checksum stands.
//!
//! | message | `before` | `number` | `body` |
//! | --- | --- | --- | --- |
//! | the schema | 0 | 0 | empty |
//! | a batch | the checksum of the schema | batches of this answer before it | that of the message |
//!
//! The schema says of what its stream is: the recipe, the epoch, the shard, the batch size, and the first batch and the
//! step. So the checksum of a batch covers every byte of its message, all that, and the message's place in the answer.
//! A batch of another stream does not pass, nor does one of the same stream that comes twice or too early.
//!
//! The same request always gives the same bytes, and so does another that asks for the same in other words, as for a
//! schedule by its digest. What binds an answer to the request are headers of HTTP: [`REQUEST_HEADER`] is
//! the checksum of the request as it reached the server ([`of_request`]), and [`SCHEMA_HEADER`] that of the schema
//! with the first as its `before` ([`of_schema`]). An answer that is no stream, and lies ready as a whole, has
//! [`BODY_HEADER`] instead, the checksum of its body likewise ([`of_body`]). A client that computes both from what it
//! asked for and what it got knows that all it got is what it asked for.
//!
//! A client may send the same two headers with a request, of that and of its body: a server does nothing if the request
//! was changed on its way, or the body that it reads.
//!
//! Server-sent events never lie ready as a whole, so each has a checksum of its own, in a comment ([`of_event`]).
//!
//! That batches are missing at the end shows in their number, which the schema announces. Not covered are Arrow's end of
//! stream, and HTTP. Messages in shared memory are not checked: there, the checksum is left unset.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use twox_hash::XxHash3_64;

/// Metadata key of a message's checksum.
pub const KEY: &str = "pba.checksum";
/// The checksum's text before it is known: the name of the function, and 16 hexadecimal digits.
pub const UNSET: &str = "xxh3:0000000000000000";

/// Where the digits begin.
const DIGITS: usize = 5;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// The head has no checksum, or several.
    #[error("a message has no checksum; the server is older than this client, or the message was damaged")]
    Missing,
    /// The bytes are not those that were sent.
    #[error(
        "the checksum of a message is {found}, and should be {expected}: it was damaged on its way, or another was \
         expected here"
    )]
    Wrong {
        /// What the message says.
        found: Text,
        /// What follows from its bytes and its place.
        expected: Text,
    },
}

/// A checksum as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text(u64);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "xxh3:{:016x}", self.0)
    }
}

/// The head of a message whose checksum depends on its body and its number alone.
#[derive(Clone, Debug)]
pub struct Head {
    /// With [`UNSET`] where the checksum stands.
    bytes: Vec<u8>,
    digits: Range<usize>,
    seed: u64,
}

impl Head {
    /// A head in which [`UNSET`] stands once, as a string of a flatbuffer; `before` is the checksum of the
    /// stream's schema, and 0 for that.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(mut bytes: Vec<u8>, before: u64) -> Result<Head, ChecksumError> {
        let text = find(&bytes).ok_or(ChecksumError::Missing)?;
        bytes[text.clone()].copy_from_slice(UNSET.as_bytes());
        let seed = XxHash3_64::oneshot_with_seed(before, &bytes);
        Ok(Head { bytes, digits: text.start + DIGITS..text.end, seed })
    }

    /// The checksum of the message with this head and a body, before which so many batches came.
    pub fn checksum(&self, body: &[u8], number: u64) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed ^ number, body)
    }

    /// The head without a checksum, as in shared memory.
    pub fn unset(&self) -> &[u8] {
        &self.bytes
    }

    /// The head with a checksum.
    pub fn with(&self, checksum: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[self.digits.clone()].copy_from_slice(format!("{checksum:016x}").as_bytes());
        bytes
    }
}

/// Checks a message that was received, and returns its checksum; `before` and `number` are those of the
/// message that has to come here.
///
/// # Errors
/// When it has none, or another one.
pub fn check(head: &[u8], body: &[u8], before: u64, number: u64) -> Result<u64, ChecksumError> {
    let found = find(head).and_then(|text| {
        let digits = std::str::from_utf8(&head[text.start + DIGITS..text.end]).ok()?;
        u64::from_str_radix(digits, 16).ok()
    });
    let found = found.ok_or(ChecksumError::Missing)?;
    let expected = Head::new(head.to_vec(), before)?.checksum(body, number);
    match found == expected {
        true => Ok(found),
        false => Err(ChecksumError::Wrong { found: Text(found), expected: Text(expected) }),
    }
}

/// The header of every answer but those to what is no HTTP: the checksum of the request as it reached the server.
pub const REQUEST_HEADER: &str = "pba-request";
/// The header of an answer that holds a stream: the checksum of its schema as the answer to that request.
pub const SCHEMA_HEADER: &str = "pba-schema";
/// The header of an answer that lies ready as a whole: the checksum of its body as the answer to that request.
pub const BODY_HEADER: &str = "pba-body";

impl Sum {
    /// The checksum that a header has; none where it has none.
    pub fn read(text: &str) -> Option<Sum> {
        u64::from_str_radix(text, 16).ok().map(Sum).filter(|sum| sum.to_string() == text)
    }
}

/// A checksum as headers have it: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(u64);

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The checksum of a request. A client whose request was changed on its way would take other samples for its own, or
/// another change for the one that it asked for, if it did not compare. It is XXH3 over the method and a space, then
/// each segment of the path, then each name and value of the query: decoded, with `/`, `?` or `=` and
/// its length in bytes and a colon in front. `target` is the path with the query, as they are sent.
pub fn of_request(method: &str, target: &str) -> Sum {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut text = format!("{method} ").into_bytes();
    let mut add = |mark: char, part: &[u8]| {
        text.extend_from_slice(format!("{mark}{}:", part.len()).as_bytes());
        text.extend_from_slice(part);
    };
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        add('/', &Cow::from(percent_decode_str(segment)));
    }
    // As a form, but for what is no text: bytes are compared, and not what is shown for them.
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let pair = pair.replace('+', " ");
        let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
        add('?', &Cow::from(percent_decode_str(name)));
        add('=', &Cow::from(percent_decode_str(value)));
    }
    Sum(XxHash3_64::oneshot(&text))
}

/// The checksum of a complete body: that of a request with this head, or that of the answer to a request. Where the server
/// has read the request's body, the latter is seeded with its checksum, in the place of that of the head: so the answer is
/// to what was sent as a whole.
pub fn of_body(body: &[u8], request: Sum) -> Sum {
    Sum(XxHash3_64::oneshot_with_seed(request.0, body))
}

/// What the comment begins with that each server-sent event has: its checksum follows.
pub const EVENT_COMMENT: &str = "pba-event ";

/// The checksum of a request for events after the one with an id, which its header `Last-Event-ID` has; without, the id
/// is empty. It stands for the request in the checksums of events.
pub fn of_events(last_id: &str, request: Sum) -> Sum {
    of_body(last_id.as_bytes(), request)
}

/// The checksum of a server-sent event of an answer to a request ([`of_events`]), of its id (empty if it has none), its
/// kind and its data: XXH3 over each of them, with its length in bytes and a colon in front.
pub fn of_event(id: &str, kind: &str, data: &str, request: Sum) -> Sum {
    let text: String = [id, kind, data].map(|part| format!("{}:{part}", part.len())).concat();
    of_body(text.as_bytes(), request)
}

/// The checksum of a schema's message as the answer to a request: the one that it would have if the request's
/// were its `before`.
///
/// # Errors
/// When it has no place for a checksum.
pub fn of_schema(message: &[u8], request: Sum) -> Result<Sum, ChecksumError> {
    Ok(Sum(Head::new(message.to_vec(), request.0)?.checksum(&[], 0)))
}

/// The only place of a checksum in a head: a string of a flatbuffer, which has its length in front and a zero
/// behind it.
fn find(head: &[u8]) -> Option<Range<usize>> {
    let length = (UNSET.len() as u32).to_le_bytes();
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let mut places = head.windows(4 + UNSET.len() + 1).enumerate().filter(|(_, window)| {
        let (before, text) = window.split_at(4);
        let (name, digits) = text.split_at(DIGITS);
        before == length
            && name == &UNSET.as_bytes()[..DIGITS]
            && digits[..UNSET.len() - DIGITS].iter().all(is_digit)
            && digits.last() == Some(&0)
    });
    let (place, _) = places.next()?;
    places.next().is_none().then_some(place + 4..place + 4 + UNSET.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> (Vec<u8>, Vec<u8>) {
        let head =
            [&[0xff; 8][..], b"some words", &[21, 0, 0, 0], UNSET.as_bytes(), &[0; 3], b"more"].concat();
        let body: Vec<u8> = (0..1000u32).map(|number| (number * 7) as u8).collect();
        let sealed = Head::new(head, 5).unwrap();
        (sealed.with(sealed.checksum(&body, 0)), body)
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (mut head, mut body) = message();
        assert!(check(&head, &body, 5, 0).is_ok());
        assert!(matches!(check(&head, &body, 6, 0), Err(ChecksumError::Wrong { .. })), "of another stream");
        assert!(matches!(check(&head, &body, 5, 1), Err(ChecksumError::Wrong { .. })), "at another place");
        for bit in 0..head.len() * 8 {
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&head, &body, 5, 0).is_err(), "bit {bit} of the head");
            head[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&head, &body, 5, 0).is_err(), "bit {bit} of the body");
            body[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(check(&head, &body[..999], 5, 0).is_err());
    }

    /// The same on every machine, and in Python's `xxhash`.
    #[test]
    fn a_checksum_is_what_it_always_was() {
        let (head, body) = message();
        assert_eq!(check(&head, &body, 5, 0), Ok(18_204_987_547_365_892_961));
    }

    #[test]
    fn a_request_is_what_it_says() {
        let stream = |rest: &str| of_request("GET", &format!("/v1/datasets/{rest}"));
        let asked = stream("a%20b/epochs/3/batches?base=pad_crop%3A4%2Cflip&seed=1");
        assert_eq!(asked.to_string(), "2cffc9e7cc24f7be");
        assert_eq!(asked, stream("a%20b/epochs/3/batches?base=pad_crop:4,flip&seed=1"));
        assert_ne!(asked, stream("a%20b/epochs/3/batches?base=pad_crop:4,flip&seed=2"));
        assert_ne!(stream("a?x=12&y="), stream("a?x=1&2y="));
        assert_ne!(stream("a/x/y"), stream("a?x=y"));
        assert_ne!(stream("a%2Fb"), stream("a/b"));
        assert_ne!(stream("%FF"), stream("%EF%BF%BD"));
        assert_ne!(stream("a?x=%FF"), stream("a?x=%EF%BF%BD"));
        assert_eq!(stream("a?x=1+2&&y"), stream("a?x=1%202&y="));
        assert_ne!(of_request("GET", "/v1/schedules/a"), of_request("DELETE", "/v1/schedules/a"));
    }

    #[test]
    fn a_body_answers_one_request() {
        let [one, other] = ["a", "b"].map(|name| of_request("GET", name));
        assert_eq!(of_body(b"text", one), of_body(b"text", one));
        assert_ne!(of_body(b"text", one), of_body(b"text", other));
        assert_ne!(of_body(b"text", one), of_body(b"tex\xf4", one));
    }

    #[test]
    fn an_event_is_what_it_says() {
        let asked = of_request("GET", "/v1/searches/a/events");
        let event = |id, kind, data| of_event(id, kind, data, asked);
        let sums = [("", "state", "{}"), ("s", "tate", "{}"), ("1-5", "state", "{}"), ("", "state", "{ }")]
            .map(|(id, kind, data)| event(id, kind, data).0);
        assert_eq!(sums.iter().collect::<std::collections::HashSet<_>>().len(), sums.len());
    }

    #[test]
    fn a_schema_answers_one_request() {
        let (schema, _) = message();
        let [one, other] = ["/a?seed=1", "/a?seed=2"].map(|target| of_request("GET", target));
        assert_eq!(of_schema(&schema, one), of_schema(&schema, one));
        assert_ne!(of_schema(&schema, one), of_schema(&schema, other));
        let mut changed = schema.clone();
        changed[9] ^= 1;
        assert_ne!(of_schema(&schema, one), of_schema(&changed, one));
    }

    #[test]
    fn a_head_has_one_checksum() {
        assert_eq!(check(b"nothing", b"", 0, 0), Err(ChecksumError::Missing));
        let twice = [&[21, 0, 0, 0], UNSET.as_bytes(), &[0]].concat().repeat(2);
        assert_eq!(check(&twice, b"", 0, 0), Err(ChecksumError::Missing));
        let upper = [&[21, 0, 0, 0], &b"xxh3:000000000000000A"[..], &[0]].concat();
        assert_eq!(check(&upper, b"", 0, 0), Err(ChecksumError::Missing), "there is one way to write it");
    }
}
