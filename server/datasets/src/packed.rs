//! Reading the packed format, by memory map.
//!
//! Opening reads the footer, one message header per record batch, and the labels; never a pixel.
//! The layout is checked here once, against the length of the file, so that nothing read later
//! can be out of bounds. Files are described in [`pack`](crate::Packer).

use std::fs::File;
use std::path::Path;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{MessageHeader, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{DataType, Schema};

use crate::error::DatasetError;
use crate::map::Map;
use crate::pack::{self, CLASSES_MAX, IMAGE_SIDE_MAX};
use crate::split::{BatchPlace, Split};

const MAGIC: &[u8; 6] = b"ARROW1";
/// Buffers of a record batch: validity of images and of their items, items, validity of labels,
/// labels.
const BUFFERS: usize = 5;

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
    let refuse = |reason: String| DatasetError::Packed { file: path.to_owned(), reason };
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

    let image_bytes = head.height as usize * head.width as usize * 3;
    let blocks = footer.recordBatches().ok_or("its footer lists no record batches")?;
    let mut batches = Vec::with_capacity(blocks.len());
    let (mut rows, mut batch_rows) = (0_u64, 0_u64);
    for (position, block) in blocks.iter().enumerate() {
        let batch = Batch::read(&map[..footer_start], block, image_bytes)
            .map_err(|reason| format!("record batch {position}: {reason}"))?;
        if position == 0 {
            batch_rows = batch.rows;
        }
        let is_last = position + 1 == blocks.len();
        if batch.rows > batch_rows || (batch.rows < batch_rows && !is_last) {
            return Err(format!("record batch {position} has {} rows, the first {batch_rows}", batch.rows));
        }
        rows += batch.rows;
        for (row, label) in
            map[batch.place.labels..].as_chunks::<8>().0[..batch.rows as usize].iter().enumerate()
        {
            let label = i64::from_le_bytes(*label);
            if !(0..head.classes.len() as i64).contains(&label) {
                let allowed = pack::allowed_labels(head.classes.len());
                return Err(format!(
                    "record batch {position}, row {row}: label {label} is not allowed; allowed are {allowed}"
                ));
            }
        }
        batches.push(batch.place);
    }
    if rows != head.rows || rows == 0 {
        return Err(format!("it holds {rows} rows and says it has {}", head.rows));
    }
    Ok(Split {
        map,
        batches,
        batch_rows,
        rows,
        height: head.height,
        width: head.width,
        digest: head.digest,
        mean: head.mean,
        std: head.std,
        classes: head.classes,
        source: head.source,
    })
}

fn little_i32(bytes: &[u8]) -> i32 {
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// What the schema says.
struct Head {
    height: u32,
    width: u32,
    rows: u64,
    digest: pba_schedules::Digest,
    mean: [f64; 3],
    std: [f64; 3],
    classes: Vec<String>,
    source: String,
}

impl Head {
    fn read(schema: &Schema) -> Result<Head, String> {
        let value =
            |key: &str| schema.metadata().get(key).ok_or(format!("its schema has no metadata {key:?}"));
        let format = value(pack::KEY_FORMAT)?;
        if format != pack::FORMAT {
            return Err(format!("its format is {format:?}; this version reads {:?}", pack::FORMAT));
        }
        let (height, width) = shape(schema)?;
        let json = |key: &str| Ok::<_, String>((key.to_owned(), value(key)?.clone()));
        let classes: Vec<String> = parse(json(pack::KEY_CLASSES)?)?;
        if !(1..=CLASSES_MAX).contains(&classes.len()) {
            return Err(format!("it names {} classes; allowed are 1..={CLASSES_MAX}", classes.len()));
        }
        let (mean, std): ([f64; 3], [f64; 3]) = (parse(json(pack::KEY_MEAN)?)?, parse(json(pack::KEY_STD)?)?);
        if !mean.iter().chain(&std).all(|value| (0.0..=1.0).contains(value)) {
            return Err(format!("mean {mean:?} or standard deviation {std:?} is not within 0..=1"));
        }
        Ok(Head {
            height,
            width,
            rows: parse(json(pack::KEY_ROWS)?)?,
            digest: value(pack::KEY_DIGEST)?.parse().map_err(|error| format!("{error}"))?,
            mean,
            std,
            classes,
            source: schema.metadata().get(pack::KEY_SOURCE).cloned().unwrap_or_default(),
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>((key, text): (String, String)) -> Result<T, String> {
    serde_json::from_str(&text).map_err(|error| format!("metadata {key:?}: {error}"))
}

/// Height and width from the tensor type of the image column.
fn shape(schema: &Schema) -> Result<(u32, u32), String> {
    #[derive(serde::Deserialize)]
    struct Tensor {
        shape: [u32; 3],
    }
    let [image, label] = [0, 1].map(|column| schema.fields().get(column));
    let (Some(image), Some(label), 2) = (image, label, schema.fields().len()) else {
        return Err(format!("it has {} columns; expected image and label", schema.fields().len()));
    };
    let extension = image.metadata();
    let tensor = extension.get("ARROW:extension:metadata").cloned().unwrap_or_default();
    let Tensor { shape: [height, width, channels] } = parse(("ARROW:extension:metadata".into(), tensor))?;
    let sides = 1..=IMAGE_SIDE_MAX;
    if channels != 3 || !sides.contains(&height) || !sides.contains(&width) {
        return Err(format!(
            "its images are {height}x{width}x{channels}; allowed are 3 channels and sides of 1..={IMAGE_SIDE_MAX}"
        ));
    }
    let bytes = height as usize * width as usize * 3;
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
    Ok((height, width))
}

/// One record batch, checked to lie inside the file.
struct Batch {
    place: BatchPlace,
    rows: u64,
}

impl Batch {
    /// `file` is everything before the footer.
    fn read(file: &[u8], block: &arrow_ipc::Block, image_bytes: usize) -> Result<Batch, String> {
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
        let nodes = batch.nodes().ok_or("it lists no columns")?;
        let expected_lengths = [Some(rows), rows.checked_mul(image_bytes), Some(rows)];
        if nodes.len() != expected_lengths.len()
            || !nodes.iter().zip(expected_lengths).all(|(node, expected)| {
                node.null_count() == 0
                    && usize::try_from(node.length()).ok() == expected
                    && expected.is_some()
            })
        {
            return Err(format!(
                "its columns are not {rows} images of {image_bytes} bytes and {rows} labels, none null"
            ));
        }
        let buffers = batch.buffers().ok_or("it lists no buffers")?;
        if buffers.len() != BUFFERS {
            return Err(format!("it has {} buffers; expected {BUFFERS}", buffers.len()));
        }
        let place = |buffer: usize, bytes: usize| {
            let buffer = buffers.get(buffer);
            let offset = usize::try_from(buffer.offset()).map_err(|_| "a buffer's offset is negative")?;
            let length = usize::try_from(buffer.length()).map_err(|_| "a buffer's length is negative")?;
            if offset % 8 != 0 || body_start % 8 != 0 {
                return Err("a buffer is not aligned to 8 bytes".to_owned());
            }
            if length < bytes || offset.checked_add(length).is_none_or(|end| end > body_bytes) {
                return Err(format!(
                    "a buffer of {length} bytes at {offset} holds not {bytes}, or leaves its batch"
                ));
            }
            Ok(body_start + offset)
        };
        // Both products were found not to overflow, as they are lengths of columns.
        let place = BatchPlace { images: place(2, rows * image_bytes)?, labels: place(4, rows * 8)? };
        Ok(Batch { place, rows: rows as u64 })
    }
}
