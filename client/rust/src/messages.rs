//! The messages of a stream, put together from bytes as they come, and checked before anything is decoded.

use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::{Message, MessageHeader, root_as_message};
use pba_wire::checksum;

use crate::error::ClientError;

/// Mark and length in front of a message's metadata.
const PREFIX_BYTES: usize = 8;
const MARK: [u8; 4] = [0xff; 4];
/// Longest metadata; those of a batch take some 600 bytes, those of a schema grow with its class names.
const METADATA_BYTES_MAX: usize = 64 << 20;
/// Longest body; the server's own default bound is 256 MiB.
const BODY_BYTES_MAX: usize = 4 << 30;
/// Room is made as bytes come, never for more than these at once: a length may be wrong.
const ROOM_BYTES: usize = 16 << 20;

/// Puts messages together, and checks the checksum that each carries, unless something else answers for the bytes.
pub(crate) struct Messages {
    checks: bool,
    arriving: MutableBuffer,
    /// Length of what precedes the body, and of the whole message, as far as known.
    head: Option<usize>,
    whole: Option<usize>,
    /// Checksum of the schema, and how many batches came after it.
    stream: Option<u64>,
    batches: u64,
    /// The schema's message.
    schema: Option<Buffer>,
}

impl Messages {
    pub(crate) fn new(checks: bool) -> Messages {
        let arriving = MutableBuffer::default();
        Messages { checks, arriving, head: None, whole: None, stream: None, batches: 0, schema: None }
    }

    /// The message that came first.
    pub(crate) fn schema(&self) -> Option<&[u8]> {
        self.schema.as_deref()
    }

    /// Takes bytes up to the end of the next message, and returns that; none if it is not complete.
    ///
    /// # Errors
    /// When these bytes are not a message, or not the one that was sent.
    pub(crate) fn next(&mut self, bytes: &mut Buffer) -> Result<Option<Buffer>, ClientError> {
        loop {
            let needed = self.whole.or(self.head).unwrap_or(PREFIX_BYTES);
            let missing = needed - self.arriving.len();
            let taken = missing.min(bytes.len());
            self.arriving.reserve(missing.min(ROOM_BYTES));
            self.arriving.extend_from_slice(&bytes[..taken]);
            bytes.advance(taken);
            if taken < missing {
                return Ok(None);
            }
            match (self.head, self.whole) {
                (None, _) => self.read_prefix()?,
                (Some(head), None) => {
                    let message = root_as_message(&self.arriving[PREFIX_BYTES..head])
                        .map_err(|error| wrong(format!("a message cannot be read: {error}")))?;
                    check_kind(&message)?;
                    let body = usize::try_from(message.bodyLength()).ok();
                    let body = body.filter(|&body| body <= BODY_BYTES_MAX).ok_or_else(|| {
                        wrong(format!("a message announces a body of {} bytes", message.bodyLength()))
                    })?;
                    self.whole = Some(head + body);
                }
                (Some(head), Some(_)) => return self.complete(head).map(Some),
            }
        }
    }

    fn read_prefix(&mut self) -> Result<(), ClientError> {
        let (mark, length) = self.arriving.split_at(MARK.len());
        let length = u32::from_le_bytes(length.try_into().expect("four bytes are left")) as usize;
        if mark != MARK || length > METADATA_BYTES_MAX {
            return Err(wrong(format!("no message begins with {mark:02x?} and a length of {length}")));
        }
        self.head = Some(PREFIX_BYTES + length);
        if length == 0 {
            // The end of the stream.
            self.whole = self.head;
        }
        Ok(())
    }

    fn complete(&mut self, head: usize) -> Result<Buffer, ClientError> {
        let message: Buffer = std::mem::take(&mut self.arriving).into();
        (self.head, self.whole) = (None, None);
        if self.checks && head > PREFIX_BYTES {
            let (head, body) = message.split_at(head);
            let found = checksum::check(head, body, self.stream.unwrap_or(0), self.batches)
                .map_err(|error| wrong(error.to_string()))?;
            match self.stream {
                None => self.stream = Some(found),
                Some(_) => self.batches += 1,
            }
        }
        self.schema.get_or_insert_with(|| message.clone());
        Ok(message)
    }
}

/// Checks the kind of a whole message; what is none is left to Arrow's decoder.
pub(crate) fn check_whole(message: &[u8]) -> Result<(), ClientError> {
    let head = message.get(MARK.len()..PREFIX_BYTES).and_then(|length| {
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        message.get(PREFIX_BYTES..PREFIX_BYTES.checked_add(length)?)
    });
    head.and_then(|head| root_as_message(head).ok()).map_or(Ok(()), |message| check_kind(&message))
}

/// Checks that a message is one of those that a stream has when no codec was asked for. Arrow's decoder takes room
/// for what a compressed buffer says that it inflates to, however much, and without it the process ends.
fn check_kind(message: &Message<'_>) -> Result<(), ClientError> {
    let batch = message.header_as_record_batch();
    if batch.is_some_and(|batch| batch.compression().is_some()) {
        return Err(wrong("a batch is compressed, which was not asked for".to_owned()));
    }
    match message.header_type() {
        MessageHeader::Schema | MessageHeader::RecordBatch => Ok(()),
        other => Err(wrong(format!("a message is a {other:?}, and neither a schema nor a batch"))),
    }
}

fn wrong(reason: String) -> ClientError {
    ClientError::Stream(reason)
}
