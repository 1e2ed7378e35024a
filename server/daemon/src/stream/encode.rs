//! Batches as Arrow IPC messages.
//!
//! The pixels are augmented straight into the body of the message that goes out, so a batch is
//! never copied into a writer: only the small header in front of the body is built here.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Context;
use arrow_array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch, UInt8Array, UInt64Array};
use arrow_buffer::{Buffer as ArrowBuffer, ScalarBuffer};
use arrow_ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamWriter,
};
use arrow_ipc::{
    BodyCompressionBuilder, Buffer as BodyBuffer, CompressionType, FieldNode, KeyValue, KeyValueArgs,
    MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder, root_as_message,
};
use arrow_schema::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use pba_wire::checksum::{self, Head};

/// Buffers start at multiples of this: what Arrow recommends, and a cache line.
const ALIGNMENT: usize = 64;
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The end of a stream; a stream without it was cut.
pub const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The offset of each column in the body of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pixels, row by row.
    pub image: Range<usize>,
    /// Labels, 8 bytes each.
    pub label: Range<usize>,
    /// Indices, 8 bytes each.
    pub index: Range<usize>,
    /// Length of the body.
    pub len: usize,
}

impl Layout {
    /// The layout of `rows` images of `image_bytes` bytes.
    pub fn new(rows: usize, image_bytes: usize) -> Layout {
        let image = 0..rows * image_bytes;
        let label_start = image.end.next_multiple_of(ALIGNMENT);
        let label = label_start..label_start + rows * 8;
        let index_start = label.end.next_multiple_of(ALIGNMENT);
        let index = index_start..index_start + rows * 8;
        let len = index.end.next_multiple_of(ALIGNMENT);
        Layout { image, label, index, len }
    }
}

/// The message that opens a stream, and its checksum, which those of the batches begin with.
///
/// # Errors
/// When Arrow refuses the schema.
pub fn schema_message(schema: &Schema) -> anyhow::Result<(Bytes, u64)> {
    let mut metadata = schema.metadata().clone();
    metadata.insert(checksum::KEY.to_owned(), checksum::UNSET.to_owned());
    let schema = Schema::new_with_metadata(schema.fields().clone(), metadata);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).context("cannot encode the schema")?;
    let head = Head::new(std::mem::take(writer.get_mut()), 0)?;
    let checksum = head.checksum(&[], 0);
    Ok((head.with(checksum).into(), checksum))
}

/// The head of a record batch whose body has a layout; `stream` is the checksum of the stream's schema.
///
/// # Panics
/// When the layout does not have `rows` rows.
pub fn batch_head(rows: usize, layout: &Layout, stream: u64) -> Head {
    let image_bytes = layout.image.len() as i64;
    let rows = rows as i64;
    let nodes = [rows, image_bytes, rows, rows].map(|len| FieldNode::new(len, 0));
    let data = |range: &Range<usize>| BodyBuffer::new(range.start as i64, range.len() as i64);
    let no_nulls = |range: &Range<usize>| BodyBuffer::new(range.start as i64, 0);
    let buffers = [
        no_nulls(&layout.image), // of the list
        no_nulls(&layout.image), // of its values
        data(&layout.image),
        no_nulls(&layout.label),
        data(&layout.label),
        no_nulls(&layout.index),
        data(&layout.index),
    ];
    let parts = Parts { rows, nodes: &nodes, buffers: &buffers, codec: None, body: layout.len };
    Head::new(head(&parts), stream).expect("the checksum was given a place")
}

/// What the head of a batch says of its body.
struct Parts<'a> {
    rows: i64,
    nodes: &'a [FieldNode],
    buffers: &'a [BodyBuffer],
    codec: Option<CompressionType>,
    /// Its length.
    body: usize,
}

/// Everything in front of a batch's body, with an unset checksum.
fn head(parts: &Parts<'_>) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::with_capacity(512);
    let key = Some(builder.create_string(checksum::KEY));
    let value = Some(builder.create_string(checksum::UNSET));
    let checksum = KeyValue::create(&mut builder, &KeyValueArgs { key, value });
    let metadata = builder.create_vector(&[checksum]);
    let codec = parts.codec.map(|codec| {
        let mut compression = BodyCompressionBuilder::new(&mut builder);
        compression.add_codec(codec);
        compression.finish()
    });
    let nodes = builder.create_vector(parts.nodes);
    let buffers = builder.create_vector(parts.buffers);
    let mut batch = RecordBatchBuilder::new(&mut builder);
    batch.add_length(parts.rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    if let Some(codec) = codec {
        batch.add_compression(codec);
    }
    let batch = batch.finish().as_union_value();
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_header(batch);
    message.add_bodyLength(parts.body as i64);
    message.add_custom_metadata(metadata);
    let message = message.finish();
    builder.finish(message, None);

    let flatbuffer = builder.finished_data();
    // The prefix of 8 bytes and the flatbuffer together end on a multiple of the alignment.
    let len = (8 + flatbuffer.len()).next_multiple_of(ALIGNMENT);
    let mut head = [&CONTINUATION[..], &((len - 8) as u32).to_le_bytes(), flatbuffer].concat();
    head.resize(len, 0);
    head
}

/// Views a body as the record batch that it encodes, without copying.
///
/// # Errors
/// When the body does not fit the schema.
pub fn record_batch(schema: &SchemaRef, layout: &Layout, body: Bytes) -> anyhow::Result<RecordBatch> {
    let rows = layout.label.len() / 8;
    let body = ArrowBuffer::from(body);
    let slice = |range: &Range<usize>| body.slice_with_length(range.start, range.len());
    let DataType::FixedSizeList(pixel, image_bytes) = schema.field(0).data_type() else {
        anyhow::bail!("the first column is not a tensor");
    };
    let pixels = UInt8Array::new(ScalarBuffer::from(slice(&layout.image)), None);
    let image = FixedSizeListArray::try_new(Arc::clone(pixel), *image_bytes, Arc::new(pixels), None)?;
    let label = Int64Array::new(ScalarBuffer::new(slice(&layout.label), 0, rows), None);
    let index = UInt64Array::new(ScalarBuffer::new(slice(&layout.index), 0, rows), None);
    let columns: Vec<ArrayRef> = vec![Arc::new(image), Arc::new(label), Arc::new(index)];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Head and body of the n-th record batch of a stream, with compressed buffers; `stream` is the checksum of its
/// schema.
///
/// # Errors
/// When compression fails.
pub fn compressed_batch(
    batch: &RecordBatch,
    codec: CompressionType,
    stream: u64,
    n: u64,
) -> anyhow::Result<(Bytes, Bytes)> {
    let options = IpcWriteOptions::default().try_with_compression(Some(codec))?;
    let mut dictionaries = DictionaryTracker::new(false);
    let mut context = IpcWriteContext::default();
    let (_, encoded) =
        IpcDataGenerator::default().encode(batch, &mut dictionaries, &options, &mut context)?;
    let message = root_as_message(&encoded.ipc_message).context("cannot read what Arrow encoded")?;
    let header = message.header_as_record_batch().context("it encoded something other than a batch")?;
    let nodes: Vec<FieldNode> = header.nodes().into_iter().flatten().copied().collect();
    let buffers: Vec<BodyBuffer> = header.buffers().into_iter().flatten().copied().collect();
    let parts = Parts {
        rows: header.length(),
        nodes: &nodes,
        buffers: &buffers,
        codec: Some(codec),
        body: encoded.arrow_data.len(),
    };
    let head = Head::new(head(&parts), stream)?;
    let head = head.with(head.checksum(&encoded.arrow_data, n));
    Ok((head.into(), encoded.arrow_data.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow_ipc::reader::StreamReader;

    use super::*;

    fn body(layout: &Layout) -> Vec<u8> {
        let mut body = vec![0; layout.len];
        for (position, byte) in body[layout.image.clone()].iter_mut().enumerate() {
            *byte = position as u8;
        }
        for (row, value) in body[layout.label.clone()].chunks_exact_mut(8).enumerate() {
            value.copy_from_slice(&(row as i64 - 1).to_le_bytes());
        }
        for (row, value) in body[layout.index.clone()].chunks_exact_mut(8).enumerate() {
            value.copy_from_slice(&(row as u64 * 10).to_le_bytes());
        }
        body
    }

    /// Arrow's own reader gives back what was written, for every codec.
    #[track_caller]
    fn check(rows: usize, height: u32, width: u32) {
        let schema = Arc::new(pba_wire::stream::schema(height, width, BTreeMap::new()));
        let layout = Layout::new(rows, (height * width * 3) as usize);
        let body = Bytes::from(body(&layout));
        let batch = record_batch(&schema, &layout, body.clone()).unwrap();
        assert_eq!(batch.num_rows(), rows);

        let (opening, stream) = schema_message(&schema).unwrap();
        let head = batch_head(rows, &layout, stream);
        let plain = [
            vec![head.unset().to_vec().into(), body.clone()],
            vec![head.with(head.checksum(&body, 3)).into(), body.clone()],
        ];
        let compressed = [CompressionType::LZ4_FRAME, CompressionType::ZSTD].map(|codec| {
            let (head, body) = compressed_batch(&batch, codec, stream, 3).unwrap();
            vec![head, body]
        });
        for message in plain.iter().chain(&compressed) {
            let bytes = [&opening[..], &message[0], &message[1], &END_OF_STREAM].concat();
            let mut reader = StreamReader::try_new(&bytes[..], None).unwrap();
            assert_eq!(reader.next().unwrap().unwrap(), batch.clone().with_schema(reader.schema()).unwrap());
            assert!(reader.next().is_none());
        }
        assert_eq!(checksum::check(&opening, &[], 0, 0), Ok(stream));
        for message in plain[1..].iter().chain(&compressed) {
            assert!(checksum::check(&message[0], &message[1], stream, 3).is_ok());
        }
    }

    #[test]
    fn arrow_reads_what_is_written() {
        check(1, 1, 1);
        check(3, 3, 5);
        check(128, 32, 32);
    }
}
