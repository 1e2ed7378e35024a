//! An epoch as a client sees it.

use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::root_as_message;
use sha2::{Digest, Sha256};

/// What ends an Arrow stream.
pub const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A decoded epoch.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// The schema's metadata.
    pub metadata: HashMap<String, String>,
    /// The batches, in order.
    pub batches: Vec<RecordBatch>,
    /// The bytes that it was decoded from.
    pub bytes: Vec<u8>,
}

/// The messages of a whole stream, as they were sent: the schema, the batches, and the end.
///
/// # Panics
/// When it is not whole.
#[track_caller]
pub fn messages(stream: &[u8]) -> Vec<&[u8]> {
    let mut rest = stream;
    std::iter::from_fn(|| {
        let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        let body = match length {
            0 => 0,
            _ => root_as_message(&rest[8..8 + length]).expect("a message").bodyLength() as usize,
        };
        let message;
        (message, rest) = rest.split_at(8 + length + body);
        Some(message)
    })
    .collect()
}

/// One image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Position in the dataset.
    pub index: u64,
    /// Class.
    pub label: i64,
    /// Red, green, blue, row by row.
    pub pixels: &'a [u8],
}

impl Epoch {
    /// Decodes a whole stream with Arrow's own reader, and checks what every stream promises:
    /// the mark at its end, and as many batches and rows as its metadata says.
    ///
    /// # Panics
    /// When it breaks a promise.
    #[track_caller]
    pub fn decode(bytes: Vec<u8>) -> Epoch {
        assert!(bytes.ends_with(&END_OF_STREAM), "the stream has no end: it was cut");
        let reader = StreamReader::try_new(&bytes[..], None).expect("an Arrow stream");
        let schema = reader.schema();
        let metadata: HashMap<String, String> =
            schema.metadata().iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("a record batch")).collect();
        assert_eq!(metadata["pba.batches"], batches.len().to_string());
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(metadata["pba.rows"], rows.to_string());
        Epoch { metadata, batches, bytes }
    }

    /// The images in the order of the stream.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.batches.iter().flat_map(samples)
    }

    /// Index of every image, in the order of the stream.
    pub fn indices(&self) -> Vec<u64> {
        self.samples().map(|sample| sample.index).collect()
    }

    /// Label and pixels by index.
    ///
    /// # Panics
    /// When an index occurs twice.
    #[track_caller]
    pub fn by_index(&self) -> BTreeMap<u64, (i64, &[u8])> {
        let mut by_index = BTreeMap::new();
        for sample in self.samples() {
            let before = by_index.insert(sample.index, (sample.label, sample.pixels));
            assert!(before.is_none(), "index {} came twice", sample.index);
        }
        by_index
    }

    /// SHA-256 over index, label (8 bytes each, little-endian) and pixels of every image, in the
    /// order of the stream: independent of batch size, compression and Arrow's framing.
    pub fn digest(&self) -> String {
        digest(&self.batches)
    }
}

/// The images of a batch.
pub fn samples(batch: &RecordBatch) -> impl Iterator<Item = Sample<'_>> {
    let images = batch.column_by_name("image").expect("the column").as_fixed_size_list();
    let image_bytes = usize::try_from(images.value_length()).expect("a length");
    let pixels = images.values().as_primitive::<UInt8Type>().values();
    let pixels = &pixels[images.offset() * image_bytes..];
    let labels = batch.column_by_name("label").expect("the column").as_primitive::<Int64Type>();
    let indices = batch.column_by_name("index").expect("the column").as_primitive::<UInt64Type>();
    let labels = labels.values().iter().zip(indices.values());
    pixels.chunks_exact(image_bytes).zip(labels).map(|(pixels, (&label, &index))| Sample {
        index,
        label,
        pixels,
    })
}

/// As [`Epoch::digest`], of batches.
pub fn digest(batches: &[RecordBatch]) -> String {
    let mut hasher = Sha256::new();
    for sample in batches.iter().flat_map(samples) {
        hasher.update(sample.index.to_le_bytes());
        hasher.update(sample.label.to_le_bytes());
        hasher.update(sample.pixels);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
