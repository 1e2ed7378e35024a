//! The bytes of an answer, decoded as they come: they may be anything.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::SchemaRef;
use pba_wire::stream;

use crate::error::ClientError;
use crate::messages::{Messages, check_whole};

/// Sides of images are shorter, so that no product of them overflows.
const SIDE_MAX: u32 = 1 << 14;

/// Batches, and their rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) batches: u64,
    pub(crate) rows: u64,
}

/// An answer, as far as it has come.
pub(crate) struct Decoding {
    /// Puts messages together and checks them; none where they come whole, through shared memory.
    messages: Option<Messages>,
    schema: Option<SchemaRef>,
    decoder: StreamDecoder,
    /// Received bytes that are not decoded yet.
    rest: Buffer,
    /// A batch that is decoded, and not taken yet.
    batch: Option<RecordBatch>,
}

impl Decoding {
    /// Of an answer from a socket, or through shared memory.
    pub(crate) fn new(messages: Option<Messages>) -> Decoding {
        let (decoder, rest) = (StreamDecoder::new(), Buffer::default());
        Decoding { messages, schema: None, decoder, rest, batch: None }
    }

    /// Whether all that was received is decoded.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next bytes; there are no others left.
    pub(crate) fn take(&mut self, bytes: Buffer) {
        self.rest = bytes;
    }

    /// The schema, once it has come.
    pub(crate) fn schema(&mut self) -> Option<SchemaRef> {
        self.schema.take().or_else(|| self.decoder.schema())
    }

    /// The message that came first, where it came from a socket.
    pub(crate) fn schema_message(&self) -> Option<&[u8]> {
        self.messages.as_ref()?.schema()
    }

    /// The batch that was decoded last, once.
    pub(crate) fn batch(&mut self) -> Option<RecordBatch> {
        self.batch.take()
    }

    /// Decodes up to the end of the next batch or of the received bytes.
    pub(crate) fn advance(&mut self) -> Result<(), ClientError> {
        let mut message;
        let bytes = match &mut self.messages {
            None => {
                check_whole(&self.rest)?;
                &mut self.rest
            }
            Some(messages) => match messages.next(&mut self.rest)? {
                None => return Ok(()),
                Some(whole) => {
                    message = whole;
                    &mut message
                }
            },
        };
        // Of nonsense in a header arrow's decoder makes a panic here and there.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            if self.messages.is_some() && self.decoder.schema().is_none() {
                // Arrow's decoder looks at the schema when the first batch comes, which may be late.
                self.schema = try_schema_from_ipc_buffer(bytes).ok().map(SchemaRef::new);
            }
            self.decoder.decode(bytes)
        }));
        let decoded = decoded.map_err(|_| ClientError::Stream("an invalid Arrow message".to_owned()))?;
        self.batch = decoded.map_err(|error| ClientError::Stream(error.to_string()))?;
        Ok(())
    }
}

/// What the schema of a stream announces, if its columns are those of every stream; else what is wrong.
pub(crate) fn announced(schema: &SchemaRef) -> Result<Count, String> {
    let number = |key| text(schema, key).parse().map_err(|_| format!("its schema has no {key}"));
    let announced = Count { batches: number(stream::BATCHES)?, rows: number(stream::ROWS)? };
    if announced.batches == 0 && announced.rows > 0 {
        return Err("it announces rows but no batches".to_owned());
    }
    if !is_of_images(schema) {
        return Err(format!("its columns are not image, label and index: {}", columns(schema)));
    }
    if text(schema, stream::RECIPE).is_empty() {
        return Err(format!("its schema has no {}", stream::RECIPE));
    }
    Ok(announced)
}

/// Whether the columns are those of every stream, whatever the size of its images.
fn is_of_images(schema: &SchemaRef) -> bool {
    let shape = stream::image_shape(schema).filter(|&(height, width)| height.max(width) <= SIDE_MAX);
    shape.is_some_and(|(height, width)| {
        *stream::schema(height, width, BTreeMap::new()).fields() == *schema.fields()
    })
}

/// Names and types of columns, for messages.
pub(crate) fn columns(schema: &SchemaRef) -> String {
    let columns = schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
    columns.collect::<Vec<_>>().join(", ")
}

/// An entry of a schema's metadata; empty if there is none.
pub(crate) fn text<'a>(schema: &'a SchemaRef, key: &str) -> &'a str {
    schema.metadata().get(key).map(String::as_str).unwrap_or_default()
}

/// The schema of an answer that lies in memory, in the pieces in which it may come, its batches up to the first
/// that is refused, and why that is.
///
/// This is what an [`EpochStream`](crate::EpochStream) makes of the bytes that a server sends, but for the
/// comparison with what was asked; for tests.
///
/// # Errors
/// When the answer does not begin with a schema of images that is whole.
pub fn decode_answer<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    checks: bool,
) -> Result<(SchemaRef, Vec<RecordBatch>, Option<ClientError>), ClientError> {
    let mut pieces = pieces.into_iter();
    let mut decoding = Decoding::new(Some(Messages::new(checks)));
    let (mut schema, mut batches) = (None, Vec::new());
    let end = loop {
        if decoding.is_empty() {
            let Some(piece) = pieces.next() else { break None };
            decoding.take(Buffer::from(piece));
        }
        if let Err(error) = decoding.advance() {
            break Some(error);
        }
        if schema.is_none()
            && let Some(found) = decoding.schema()
        {
            announced(&found).map_err(ClientError::Stream)?;
            schema = Some(found);
        }
        batches.extend(decoding.batch());
    };
    match (schema, end) {
        (Some(schema), end) => Ok((schema, batches, end)),
        (None, Some(error)) => Err(error),
        (None, None) => Err(ClientError::Stream("it does not start with a schema".to_owned())),
    }
}
