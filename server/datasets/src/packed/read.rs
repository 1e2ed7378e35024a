//! Reading the packed format, by memory map.
//!
//! Opening reads the footer, one message header per record batch, and the columns beside the
//! images (labels; sizes and places of encoded images); never a pixel.
//! The layout is checked here once, against the length of the file, so that nothing read later
//! can be out of bounds.

use std::fs::File;
use std::path::Path;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{
    Block, FieldNode, MessageHeader, MetadataVersion, RecordBatch, root_as_footer, root_as_message,
};
use arrow_schema::{DataType, Field, Schema};
use pba_types::ImageShape;

use crate::decode::image::{IMAGE_SIDE_MAX, are_sides_allowed};
use crate::error::DatasetError;
use crate::packed::map::Map;
use crate::packed::spec::{self, CLASSES_MAX, KEY_TENSOR};
use crate::packed::split::{DecodedBatch, DecodedLayout, EncodedBatch, EncodedLayout, Layout, Split};

const MAGIC: &[u8; 6] = b"ARROW1";

/// Opens one packed split.
///
/// The file must not be truncated or rewritten in place while the split is in use; replacing it
/// by renaming is fine.
///
/// # Errors
/// When the file cannot be read, or is not a whole packed split.
pub fn open(path: &Path) -> Result<Split, DatasetError> {
    let file = File::open(path).map_err(DatasetError::io(path, "open it"))?;
    let metadata = file.metadata().map_err(DatasetError::io(path, "read it"))?;
    let refuse = |reason: String| {
        DatasetError::unreadable(path.display(), format_args!("not a packed split: {reason}"))
    };
    if !metadata.is_file() {
        return Err(refuse("not a file".into()));
    }
    if metadata.len() < 64 {
        return Err(refuse(format!("{} bytes are too few", metadata.len())));
    }
    let map = Map::of(&file).map_err(DatasetError::io(path, "map it into memory"))?;
    // The checks below foresee what can be wrong; should Arrow's decoder panic all the same, the
    // server must live.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(map)))
        .unwrap_or_else(|_| Err("its metadata makes the Arrow decoder panic".into()))
        .map_err(refuse)
}

fn read(map: Map) -> Result<Split, String> {
    let end = map.len() - 10;
    if !map.starts_with(MAGIC) || map[end + 4..] != MAGIC[..] {
        return Err("it does not begin and end as an Arrow IPC file does; is it cut off?".into());
    }
    let footer_bytes = usize::try_from(little_i32(&map[end..])).map_err(|_| "its footer has no length")?;
    let footer_start = end.checked_sub(footer_bytes).filter(|&start| start >= 8);
    let footer_start = footer_start.ok_or("its footer is longer than the file")?;
    let footer =
        root_as_footer(&map[footer_start..end]).map_err(|error| format!("damaged footer: {error}"))?;
    let schema = footer.schema().ok_or("its footer has no schema")?;
    let schema = try_fb_to_schema(schema).map_err(|error| format!("damaged schema: {error}"))?;
    let head = Head::read(&schema)?;

    let file = &map[..footer_start];
    let blocks = footer.recordBatches().ok_or("its footer lists no record batches")?;
    let (rows, layout) = match head.form {
        Form::Decoded { shape } => {
            let (rows, layout) = decoded_layout(file, blocks.iter(), shape, &head)?;
            (rows, Layout::Decoded(layout))
        }
        Form::Encoded => {
            let (rows, layout) = encoded_layout(file, blocks.iter(), &head)?;
            (rows, Layout::Encoded(layout))
        }
    };
    if rows != head.rows || rows == 0 {
        return Err(format!("it holds {rows} rows and says it has {}", head.rows));
    }
    Ok(Split {
        map,
        rows,
        layout,
        digest: head.digest,
        mean: head.mean,
        std: head.std,
        classes: head.classes,
        source: head.source,
    })
}

/// Record batches of pixels of one size.
fn decoded_layout<'a>(
    file: &[u8],
    blocks: impl ExactSizeIterator<Item = &'a Block>,
    shape: ImageShape,
    head: &Head,
) -> Result<(u64, DecodedLayout), String> {
    let image_bytes = shape.rgb_bytes();
    let (mut rows, mut batch_rows) = (0_u64, 0_u64);
    let count = blocks.len();
    let mut batches = Vec::with_capacity(count);
    for (position, block) in blocks.enumerate() {
        let at = |reason| format!("record batch {position}: {reason}");
        let batch = Batch::read(file, block).map_err(at)?;
        let n = batch.rows;
        let items = n.checked_mul(image_bytes).ok_or_else(|| at("it has too many rows".into()))?;
        batch.check_columns(&[n, items, n]).map_err(at)?;
        // The buffers: validity of images and of their items, items, validity of labels, labels.
        batch.check_buffers(5).map_err(at)?;
        let (images, labels) = (batch.place(2, items).map_err(at)?, batch.place(4, n * 8).map_err(at)?);
        head.check_labels(&file[labels..], n)
            .map_err(|reason| format!("record batch {position}, {reason}"))?;
        if position == 0 {
            batch_rows = n as u64;
        }
        if n as u64 > batch_rows || ((n as u64) < batch_rows && position + 1 < count) {
            return Err(format!("record batch {position} has {n} rows, the first {batch_rows}"));
        }
        rows += n as u64;
        batches.push(DecodedBatch { images, labels });
    }
    Ok((rows, DecodedLayout { shape, batch_rows, batches }))
}

/// Record batches of encoded images.
fn encoded_layout<'a>(
    file: &[u8],
    blocks: impl ExactSizeIterator<Item = &'a Block>,
    head: &Head,
) -> Result<(u64, EncodedLayout), String> {
    let mut rows = 0_u64;
    let (mut smallest, mut largest) =
        (ImageShape { height: u32::MAX, width: u32::MAX }, ImageShape { height: 0, width: 0 });
    let mut batches = Vec::with_capacity(blocks.len());
    for (position, block) in blocks.enumerate() {
        let at = |reason| format!("record batch {position}: {reason}");
        let batch = Batch::read(file, block).map_err(at)?;
        let n = batch.rows;
        batch.check_columns(&[n, n, n, n]).map_err(at)?;
        // The buffers: validity, offsets and bytes of images; validity and values of the others.
        batch.check_buffers(9).map_err(at)?;
        let offsets = n.checked_add(1).and_then(|n| n.checked_mul(4));
        let offsets = batch.place(1, offsets.ok_or_else(|| at("it has too many rows".into()))?);
        let offsets = offsets.map_err(at)?;
        let (bytes, length) = batch.buffer(2).map_err(at)?;
        let labels = batch.place(4, n * 8).map_err(at)?;
        let (heights, widths) = (batch.place(6, n * 4).map_err(at)?, batch.place(8, n * 4).map_err(at)?);
        head.check_labels(&file[labels..], n)
            .map_err(|reason| format!("record batch {position}, {reason}"))?;
        let words = |start: usize, n: usize| file[start..start + 4 * n].as_chunks::<4>().0;
        let mut end = 0;
        for (row, offset) in words(offsets, n + 1).iter().enumerate() {
            let offset = u32::from_le_bytes(*offset);
            if offset < end || offset as usize > length {
                return Err(at(format!("row {row}: it begins at byte {offset} of {length}, after {end}")));
            }
            end = offset;
        }
        for (row, (height, width)) in words(heights, n).iter().zip(words(widths, n)).enumerate() {
            let (height, width) = (u32::from_le_bytes(*height), u32::from_le_bytes(*width));
            let sides = 1..=IMAGE_SIDE_MAX;
            if !sides.contains(&height) || !sides.contains(&width) {
                return Err(at(format!(
                    "row {row}: an image of {height}x{width}; allowed are sides of 1..={IMAGE_SIDE_MAX}"
                )));
            }
            smallest.height = smallest.height.min(height);
            smallest.width = smallest.width.min(width);
            largest.height = largest.height.max(height);
            largest.width = largest.width.max(width);
        }
        batches.push(EncodedBatch { first_row: rows, offsets, bytes, labels, heights, widths });
        rows += n as u64;
    }
    Ok((rows, EncodedLayout { batches, smallest, largest }))
}

fn little_i32(bytes: &[u8]) -> i32 {
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// How the images are stored.
enum Form {
    Decoded { shape: ImageShape },
    Encoded,
}

/// What the schema says.
struct Head {
    form: Form,
    rows: u64,
    digest: pba_types::Digest,
    mean: [f64; 3],
    std: [f64; 3],
    classes: Vec<String>,
    source: String,
}

impl Head {
    fn read(schema: &Schema) -> Result<Head, String> {
        let value =
            |key: &str| schema.metadata().get(key).ok_or(format!("its schema has no metadata {key:?}"));
        let form = match value(spec::KEY_FORMAT)?.as_str() {
            spec::FORMAT => Form::Decoded { shape: shape(schema)? },
            spec::FORMAT_ENCODED => {
                check_encoded(schema)?;
                Form::Encoded
            }
            format => {
                return Err(format!(
                    "its format is {format:?}; this version reads {:?} and {:?}",
                    spec::FORMAT,
                    spec::FORMAT_ENCODED
                ));
            }
        };
        let classes: Vec<String> = parse(spec::KEY_CLASSES, value(spec::KEY_CLASSES)?)?;
        if !(1..=CLASSES_MAX).contains(&classes.len()) {
            return Err(format!("it names {} classes; allowed are 1..={CLASSES_MAX}", classes.len()));
        }
        let (mean, std): ([f64; 3], [f64; 3]) =
            (parse(spec::KEY_MEAN, value(spec::KEY_MEAN)?)?, parse(spec::KEY_STD, value(spec::KEY_STD)?)?);
        if !mean.iter().chain(&std).all(|value| (0.0..=1.0).contains(value)) {
            return Err(format!("mean {mean:?} or standard deviation {std:?} is not within 0..=1"));
        }
        Ok(Head {
            form,
            rows: parse(spec::KEY_ROWS, value(spec::KEY_ROWS)?)?,
            digest: value(spec::KEY_DIGEST)?.parse().map_err(|error| format!("{error}"))?,
            mean,
            std,
            classes,
            source: schema.metadata().get(spec::KEY_SOURCE).cloned().unwrap_or_default(),
        })
    }

    /// Checks the labels of a record batch, which `bytes` begins with.
    fn check_labels(&self, bytes: &[u8], rows: usize) -> Result<(), String> {
        for (row, label) in bytes.as_chunks::<8>().0[..rows].iter().enumerate() {
            let label = i64::from_le_bytes(*label);
            if !(0..self.classes.len() as i64).contains(&label) {
                let allowed = spec::allowed_labels(self.classes.len());
                return Err(format!("row {row}: label {label} is not allowed; allowed are {allowed}"));
            }
        }
        Ok(())
    }
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("metadata {key:?}: {error}"))
}

/// The size of the images, from the tensor type of the image column.
fn shape(schema: &Schema) -> Result<ImageShape, String> {
    #[derive(serde::Deserialize)]
    struct Tensor {
        shape: [u32; 3],
    }
    let [image, label] = [0, 1].map(|column| schema.fields().get(column));
    let (Some(image), Some(label), 2) = (image, label, schema.fields().len()) else {
        return Err(format!("it has {} columns; expected image and label", schema.fields().len()));
    };
    let tensor = image.metadata().get(KEY_TENSOR).map_or("", String::as_str);
    let Tensor { shape: [height, width, channels] } = parse(KEY_TENSOR, tensor)?;
    let shape = ImageShape { height, width };
    if channels != 3 || !are_sides_allowed(shape) {
        return Err(format!(
            "its images are {height}x{width}x{channels}; allowed are 3 channels and sides of 1..={IMAGE_SIDE_MAX}"
        ));
    }
    let bytes = shape.rgb_bytes();
    let is_image = |field: &DataType| {
        matches!(field, DataType::FixedSizeList(item, length)
            if *item.data_type() == DataType::UInt8 && *length as usize == bytes)
    };
    if image.name() != "image" || !is_image(image.data_type()) {
        return Err(format!(
            "column {:?} has type {}; expected image of {bytes} uint8",
            image.name(),
            image.data_type()
        ));
    }
    if label.name() != "label" || *label.data_type() != DataType::Int64 {
        return Err(format!(
            "column {:?} has type {}; expected label of int64",
            label.name(),
            label.data_type()
        ));
    }
    Ok(shape)
}

/// Checks the columns of a file of encoded images.
fn check_encoded(schema: &Schema) -> Result<(), String> {
    let columns = |fields: &[&Field]| {
        let texts: Vec<String> = fields.iter().map(|f| format!("{} ({})", f.name(), f.data_type())).collect();
        texts.join(", ")
    };
    let expected = spec::fields(None);
    let expected = columns(&expected.iter().collect::<Vec<_>>());
    let found = columns(&schema.fields().iter().map(AsRef::as_ref).collect::<Vec<_>>());
    if found == expected { Ok(()) } else { Err(format!("its columns are {found}; expected {expected}")) }
}

/// One record batch, checked to lie inside the file.
struct Batch<'a> {
    message: RecordBatch<'a>,
    rows: usize,
    body_start: usize,
    body_bytes: usize,
}

impl<'a> Batch<'a> {
    /// `file` is everything before the footer.
    fn read(file: &'a [u8], block: &Block) -> Result<Batch<'a>, String> {
        let cut_off = || "it reaches beyond the end of the data; is the file cut off?".to_owned();
        let start = usize::try_from(block.offset()).map_err(|_| "its offset is negative")?;
        let head_bytes = usize::try_from(block.metaDataLength()).map_err(|_| "its header has no length")?;
        let body_bytes = usize::try_from(block.bodyLength()).map_err(|_| "its body has no length")?;
        let body_start = start.checked_add(head_bytes).ok_or_else(cut_off)?;
        let body_end = body_start.checked_add(body_bytes).ok_or_else(cut_off)?;
        if body_end > file.len() {
            return Err(cut_off());
        }
        let head = &file[start..body_start];
        if head.len() < 8 || head[..4] != [0xff; 4] {
            return Err("its header does not begin as a message does".into());
        }
        let message_bytes =
            usize::try_from(little_i32(&head[4..])).map_err(|_| "its header has no length")?;
        let message = head[8..].get(..message_bytes).ok_or("its header is too short")?;
        let message = root_as_message(message).map_err(|error| format!("damaged header: {error}"))?;
        if message.header_type() != MessageHeader::RecordBatch || message.version() < MetadataVersion::V4 {
            return Err("it is not a record batch of this version".into());
        }
        let batch = message.header_as_record_batch().ok_or("it is not a record batch")?;
        if batch.compression().is_some() {
            return Err("it is compressed; a packed split is not, as it is read in place".into());
        }
        let rows = usize::try_from(batch.length()).ok().filter(|&rows| rows > 0).ok_or("it has no rows")?;
        if rows > file.len() / 8 {
            return Err(format!("it says it has {rows} rows, whose labels are longer than the file"));
        }
        Ok(Batch { message: batch, rows, body_start, body_bytes })
    }

    /// Checks the number of values of each column, with those within it, and that none is null.
    fn check_columns(&self, lengths: &[usize]) -> Result<(), String> {
        let nodes = self.message.nodes().ok_or("it lists no columns")?;
        let is_whole = |node: &FieldNode, length: usize| {
            node.null_count() == 0 && usize::try_from(node.length()) == Ok(length)
        };
        if nodes.len() == lengths.len()
            && nodes.iter().zip(lengths).all(|(node, &length)| is_whole(node, length))
        {
            return Ok(());
        }
        Err(format!("its columns do not hold {} rows without nulls", self.rows))
    }

    fn check_buffers(&self, expected: usize) -> Result<(), String> {
        let buffers = self.message.buffers().ok_or("it lists no buffers")?.len();
        if buffers == expected {
            Ok(())
        } else {
            Err(format!("it has {buffers} buffers; expected {expected}"))
        }
    }

    /// Where a buffer of at least so many bytes lies in the file. There must be such a buffer.
    fn place(&self, buffer: usize, bytes: usize) -> Result<usize, String> {
        let (start, length) = self.buffer(buffer)?;
        if length < bytes {
            return Err(format!("a buffer has {length} bytes; {bytes} are needed"));
        }
        Ok(start)
    }

    /// Where a buffer lies in the file, and its length. There must be such a buffer.
    fn buffer(&self, buffer: usize) -> Result<(usize, usize), String> {
        let buffer = self.message.buffers().ok_or("it lists no buffers")?.get(buffer);
        let offset = usize::try_from(buffer.offset()).map_err(|_| "a buffer's offset is negative")?;
        let length = usize::try_from(buffer.length()).map_err(|_| "a buffer's length is negative")?;
        if !offset.is_multiple_of(8) || !self.body_start.is_multiple_of(8) {
            return Err("a buffer is not aligned to 8 bytes".to_owned());
        }
        if offset.checked_add(length).is_none_or(|end| end > self.body_bytes) {
            return Err(format!("a buffer of {length} bytes at {offset} reaches beyond its record batch"));
        }
        Ok((self.body_start + offset, length))
    }
}
