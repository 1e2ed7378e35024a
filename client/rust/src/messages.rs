//! The messages of a stream, put together from bytes as they come, and checked before anything is decoded.

use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::root_as_message;
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

/// Puts messages together, and checks the checksum that each carries.
#[derive(Default)]
pub(crate) struct Messages {
    arriving: MutableBuffer,
    /// Length of what precedes the body, and of the whole message, as far as known.
    head: Option<usize>,
    whole: Option<usize>,
    /// Checksum of the schema.
    stream: Option<u64>,
}

impl Messages {
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
        if head > PREFIX_BYTES {
            let (head, body) = message.split_at(head);
            let stream = self.stream.unwrap_or(0);
            let found = checksum::check(head, body, stream).map_err(|error| wrong(error.to_string()))?;
            self.stream.get_or_insert(found);
        }
        Ok(message)
    }
}

fn wrong(reason: String) -> ClientError {
    ClientError::Stream(reason)
}
