//! Reading the packed format, by memory map.
//!
//! Opening reads the footer, one message header per record batch, and the columns beside the
//! images (labels; sizes and places of encoded images); never a pixel.
//! The layout is checked here once, against the length of the file, so that nothing read later
//! can be out of bounds; and what is read here, against its checksums. Pixels are compared with theirs when
//! they are read ([`Split::read`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{
    Block, FieldNode, Footer, MessageHeader, MetadataVersion, RecordBatch, root_as_footer, root_as_message,
};
use arrow_schema::{DataType, Field, Schema};
use pba_files::FileState;
use pba_types::ImageShape;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;

use crate::decode::image::{IMAGE_SIDE_MAX, are_sides_allowed};
use crate::error::DatasetError;
use crate::packed::checks::Checks;
use crate::packed::hash::checksum;
use crate::packed::map::Mapping;
use crate::packed::spec::{self, CLASSES_MAX, KEY_TENSOR};
use crate::packed::split::{Batch, Head, Split};

const MAGIC: &[u8; 6] = b"ARROW1";
/// Longest schema that is looked at to tell the version of a file: one with as many classes as there may be.
const SCHEMA_BYTES_MAX: usize = 256 << 20;

/// Opens one packed split.
///
/// The file is mapped, so it must be one that no other program writes to: one that was packed into a cache. It may be
/// replaced by renaming at any time; what happens to it otherwise is found by [`Split::read`].
///
/// # Errors
/// When the file cannot be read, is not a whole packed split, or is not the one that was packed there, but another
/// split, or another dataset's.
pub fn open(path: &Path) -> Result<Split, DatasetError> {
    let split = open_file(pba_files::open(path).map_err(DatasetError::io(path, "open it"))?, path)?;
    match &split.head.place {
        Some(place) if *place == spec::place(path) => {}
        Some(_) => {
            let (file, rows) = (path.to_owned(), 0..split.len());
            let reason = "it was packed to be another split, or of another dataset".to_owned();
            return Err(DatasetError::Damaged { file, batch: None, rows, reason });
        }
        None => return Err(refuse(path, "it is of an earlier version, without checksums".into())),
    }
    // So that a server that removes files knows that this one is in use; not every file system has locks.
    let _ = flock(&split.file, FlockOperation::NonBlockingLockShared);
    Ok(split)
}

/// Writes into a file that was compared with its checksums where in a cache it is going to be, as its footer has it.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn put_place(split: &Split, path: &Path) -> io::Result<()> {
    let map = &split.map[..];
    let end = map.len() - 10;
    let start = end - little_i32(&map[end..]) as usize;
    let mut bytes = map[start..end].to_vec();
    let wrong = || io::Error::other("its footer is another than was read");
    let (place, sum, first) = {
        let footer = root_as_footer(&bytes).map_err(|_| wrong())?;
        let first =
            footer.recordBatches().and_then(|blocks| blocks.iter().next()).map(|block| block.offset());
        let at = |key| entry(&footer, key).map(|text| text.as_ptr() as usize - bytes.as_ptr() as usize);
        (at(spec::KEY_PLACE), at(spec::KEY_CHECKSUM), first)
    };
    let (place, sum) = place.zip(sum).ok_or_else(wrong)?;
    let before = first.and_then(|first| map.get(..usize::try_from(first).ok()?)).ok_or_else(wrong)?;
    let mut put = |at: usize, text: &str| bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(place, &spec::place(path));
    put(sum, spec::HOLE_CHECKSUM);
    let text = format!("{:016x}", checksum(&[before, &bytes]));
    bytes[sum..sum + text.len()].copy_from_slice(text.as_bytes());
    split.file.write_all_at(&bytes, start as u64)
}

/// A text in the footer's own metadata.
fn entry<'a>(footer: &Footer<'a>, key: &str) -> Option<&'a str> {
    let entries = footer.custom_metadata().into_iter().flatten();
    entries.filter(|entry| entry.key() == Some(key)).find_map(|entry| entry.value())
}

/// Whether a file is one that an earlier version packed and this one does not open, as far as its head says.
pub(crate) fn is_of_earlier_version(file: &File) -> bool {
    let format = || {
        let mut head = [0; 72];
        file.read_exact_at(&mut head, 0).ok()?;
        // The schema's message comes after some zeros.
        let mut places = (8..=64).step_by(8).filter(|&place| head[place..place + 4] == [0xff; 4]);
        let place = places.next().filter(|_| head.starts_with(MAGIC))?;
        let length = usize::try_from(little_i32(&head[place + 4..])).ok()?;
        let mut message = vec![0; Some(length).filter(|&length| length <= SCHEMA_BYTES_MAX)?];
        file.read_exact_at(&mut message, place as u64 + 8).ok()?;
        let message = root_as_message(&message).ok()?;
        let entries = message.header_as_schema()?.custom_metadata()?;
        entries.iter().find(|entry| entry.key() == Some(spec::KEY_FORMAT))?.value().map(str::to_owned)
    };
    format().is_some_and(|format| [spec::FORMAT_1, spec::FORMAT_ENCODED_1].contains(&&*format))
}

fn refuse(path: &Path, reason: String) -> DatasetError {
    DatasetError::unreadable(path.display(), format_args!("not a packed split: {reason}"))
}

/// Opens a packed split, of an earlier version perhaps, whose content then has no checksums. Messages name it
/// `path`.
pub(crate) fn open_file(file: File, path: &Path) -> Result<Split, DatasetError> {
    let refuse = |reason: String| refuse(path, reason);
    let metadata = file.metadata().map_err(DatasetError::io(path, "read it"))?;
    if !metadata.is_file() {
        return Err(refuse("not a file".into()));
    }
    if metadata.len() < 64 {
        return Err(refuse(format!("{} bytes are too few", metadata.len())));
    }
    // Before anything is read, so that a change from then on is one.
    let stamp = FileState::of_open(&file).map_err(DatasetError::io(path, "look at it"))?;
    let map = Mapping::new(&file).map_err(DatasetError::io(path, "map it into memory"))?;
    // The checks below foresee what can be wrong; should Arrow's decoder panic all the same, the
    // server must live.
    let layout = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&map)))
        .unwrap_or_else(|_| Err("its metadata makes the Arrow decoder panic".into()))
        .map_err(refuse)?;
    if map.is_faulted() {
        return Err(refuse("a part of it could not be read".into()));
    }
    let Layout { head, batch_rows, batches, blocks, block_sums, smallest, largest, class_counts } = layout;
    let checks = Checks::new(stamp, batches.len(), if head.shape.is_some() { blocks } else { 0 });
    let path = path.to_owned();
    Ok(Split {
        path,
        file,
        map,
        checks,
        block_sums,
        head,
        batch_rows,
        batches,
        smallest,
        largest,
        class_counts,
    })
}

/// What a packed file says of itself.
struct Layout {
    head: Head,
    batch_rows: u64,
    batches: Vec<Batch>,
    blocks: usize,
    block_sums: Vec<u64>,
    smallest: ImageShape,
    largest: ImageShape,
    class_counts: Vec<u64>,
}

fn read(map: &[u8]) -> Result<Layout, String> {
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
    let mut head = head(&schema)?;
    // Before there were places, nothing but these was known of a file of this version.
    head.place = entry(&footer, spec::KEY_PLACE)
        .filter(|place| head.has_checksums && place.len() == 64)
        .map(str::to_owned);

    let file = &map[..footer_start];
    let blocks = footer.recordBatches().ok_or("its footer lists no record batches")?;
    let mut sums = match head.has_checksums {
        true => {
            let first = blocks.iter().next().map_or(Ok(0), |block| usize::try_from(block.offset()));
            let before =
                first.ok().and_then(|first| file.get(..first)).ok_or("its first record batch is nowhere")?;
            Some(Sums::read(&footer, before, &map[footer_start..end])?)
        }
        false => None,
    };
    let (mut block_sums, mut first_block) = (Vec::new(), 0);
    let (mut rows, mut batch_rows, mut batches) = (0, 0, Vec::with_capacity(blocks.len()));
    let mut smallest = ImageShape { height: u32::MAX, width: u32::MAX };
    let mut largest = ImageShape { height: 0, width: 0 };
    let mut class_counts = vec![0; head.classes.len()];
    for (position, block) in blocks.iter().enumerate() {
        let at = |reason| format!("record batch {position}: {reason}");
        let message = Message::read(file, block).map_err(at)?;
        let batch = match head.shape {
            Some(shape) => message.pixels(shape),
            None => message.encoded(head.has_checksums, &mut smallest, &mut largest),
        };
        let mut batch = Batch { first_row: rows, rows: message.rows, first_block, ..batch.map_err(at)? };
        first_block += batch.blocks(head.shape);
        count_labels(&file[batch.labels..], message.rows, &mut class_counts)
            .map_err(|reason| format!("record batch {position}, {reason}"))?;
        if let Some(sums) = &mut sums {
            batch.columns_sum = sums.next().map_err(at)?;
            if head.shape.is_some() {
                for _ in 0..batch.blocks(head.shape) {
                    block_sums.push(sums.next().map_err(at)?);
                }
            }
            let found = checksum(&batch.columns(file, head.shape));
            if found != batch.columns_sum {
                let expected = batch.columns_sum;
                return Err(at(format!("its checksum is {found:016x}; expected {expected:016x}")));
            }
        }
        let n = message.rows as u64;
        if position == 0 {
            batch_rows = n;
        }
        let is_short = n < batch_rows && position + 1 < blocks.len();
        if head.shape.is_some() && (n > batch_rows || is_short) {
            return Err(format!("record batch {position} has {n} rows, the first {batch_rows}"));
        }
        rows += n;
        batches.push(batch);
    }
    if rows != head.rows || rows == 0 {
        return Err(format!("it holds {rows} rows and says it has {}", head.rows));
    }
    let blocks = first_block;
    Ok(Layout { head, batch_rows, batches, blocks, block_sums, smallest, largest, class_counts })
}

/// The checksums of a footer, as they are used up.
struct Sums<'a>(&'a [u8]);

impl<'a> Sums<'a> {
    /// Compares the checksum of the footer and all that is before the first record batch, which covers those
    /// that follow here.
    fn read(footer: &Footer<'a>, before: &[u8], bytes: &'a [u8]) -> Result<Sums<'a>, String> {
        let text =
            |key: &str| entry(footer, key).ok_or_else(|| format!("its footer has no metadata {key:?}"));
        let expected = text(spec::KEY_CHECKSUM)?;
        let place = expected.as_ptr() as usize - bytes.as_ptr() as usize;
        let hole = spec::HOLE_CHECKSUM.as_bytes();
        let found = checksum(&[before, &bytes[..place], hole, &bytes[place + expected.len()..]]);
        match format!("{found:016x}") {
            found if found != expected => Err(format!("its checksum is {found}; expected {expected}")),
            _ => Ok(Sums(text(spec::KEY_CHECKSUMS)?.as_bytes())),
        }
    }

    fn next(&mut self) -> Result<u64, String> {
        let (next, rest) = self.0.split_first_chunk::<16>().ok_or("it has no checksum")?;
        self.0 = rest;
        let digits = std::str::from_utf8(next).ok();
        let sum = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        sum.ok_or_else(|| "its checksum is no number".to_owned())
    }
}

fn little_i32(bytes: &[u8]) -> i32 {
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Counts and checks the labels of so many rows, which `bytes` begins with.
fn count_labels(bytes: &[u8], rows: usize, class_counts: &mut [u64]) -> Result<(), String> {
    for (row, label) in bytes.as_chunks::<8>().0[..rows].iter().enumerate() {
        let label = i64::from_le_bytes(*label);
        match usize::try_from(label).ok().and_then(|class| class_counts.get_mut(class)) {
            Some(count) => *count += 1,
            None => {
                let allowed = spec::allowed_labels(class_counts.len());
                return Err(format!("row {row}: label {label} is not allowed; allowed are {allowed}"));
            }
        }
    }
    Ok(())
}

fn head(schema: &Schema) -> Result<Head, String> {
    let format = text(schema, spec::KEY_FORMAT)?;
    let shape = match format {
        spec::FORMAT | spec::FORMAT_1 => Some(shape(schema)?),
        spec::FORMAT_ENCODED | spec::FORMAT_ENCODED_1 => {
            let (found, expected) = (schema.fields(), spec::encoded_fields(format == spec::FORMAT_ENCODED));
            let (found, expected) = (spec::columns(found), spec::columns(&expected));
            if found != expected {
                return Err(format!("its columns are {found}; expected {expected}"));
            }
            None
        }
        format => {
            let known = format!("{:?} and {:?}", spec::FORMAT, spec::FORMAT_ENCODED);
            return Err(format!("its format is {format:?}; this version reads {known}"));
        }
    };
    let classes: Vec<String> = value(schema, spec::KEY_CLASSES)?;
    if !(1..=CLASSES_MAX).contains(&classes.len()) {
        return Err(format!("it names {} classes; allowed are 1..={CLASSES_MAX}", classes.len()));
    }
    let (mean, std): ([f64; 3], [f64; 3]) = (value(schema, spec::KEY_MEAN)?, value(schema, spec::KEY_STD)?);
    if !mean.iter().chain(&std).all(|value| (0.0..=1.0).contains(value)) {
        return Err(format!("mean {mean:?} or standard deviation {std:?} is not within 0..=1"));
    }
    let rows = value(schema, spec::KEY_ROWS)?;
    let digest = text(schema, spec::KEY_DIGEST)?.parse().map_err(|error| format!("{error}"))?;
    let has_checksums = [spec::FORMAT, spec::FORMAT_ENCODED].contains(&format);
    Ok(Head { shape, rows, digest, mean, std, classes, has_checksums, place: None })
}

fn text<'a>(schema: &'a Schema, key: &str) -> Result<&'a str, String> {
    let text = schema.metadata().get(key);
    text.map(String::as_str).ok_or_else(|| format!("its schema has no metadata {key:?}"))
}

fn value<T: DeserializeOwned>(schema: &Schema, key: &str) -> Result<T, String> {
    parse(key, text(schema, key)?)
}

fn parse<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("metadata {key:?}: {error}"))
}

/// The size of the images, from the tensor type of the image column.
fn shape(schema: &Schema) -> Result<ImageShape, String> {
    #[derive(serde::Deserialize)]
    struct Tensor {
        shape: [u32; 3],
    }
    let [image, label] = &schema.fields()[..] else {
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
    let other = |found: &Field, expected: String| {
        Err(format!("column {:?} has type {}; expected {expected}", found.name(), found.data_type()))
    };
    if image.name() != "image" || !is_image(image.data_type()) {
        return other(image, format!("image of {bytes} uint8"));
    }
    if label.name() != "label" || *label.data_type() != DataType::Int64 {
        return other(label, "label of int64".into());
    }
    Ok(shape)
}

/// One record batch, checked to lie inside the file.
struct Message<'a> {
    file: &'a [u8],
    batch: RecordBatch<'a>,
    rows: usize,
    body_start: usize,
    body_bytes: usize,
}

impl<'a> Message<'a> {
    /// `file` is everything before the footer.
    fn read(file: &'a [u8], block: &Block) -> Result<Message<'a>, String> {
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
        Ok(Message { file, batch, rows, body_start, body_bytes })
    }

    /// Where the columns of pixels of one size lie.
    fn pixels(&self, shape: ImageShape) -> Result<Batch, String> {
        let n = self.rows;
        let items = n.checked_mul(shape.rgb_bytes()).ok_or("it has too many rows")?;
        // The buffers: validity of images and of their items, items, validity of labels, labels.
        self.check(&[n, items, n], 5)?;
        let (images, labels) = (self.place(2, items)?, self.place(4, 8 * n)?);
        Ok(Batch { images, labels, image_bytes: items, ..Batch::default() })
    }

    /// Where the columns of encoded images lie. Notes the smallest and the largest sides.
    fn encoded(
        &self,
        has_checksums: bool,
        smallest: &mut ImageShape,
        largest: &mut ImageShape,
    ) -> Result<Batch, String> {
        let n = self.rows;
        // The buffers: validity, offsets and bytes of images; validity and values of the others.
        match has_checksums {
            true => self.check(&[n; 5], 11)?,
            false => self.check(&[n; 4], 9)?,
        }
        let (images, length) = self.buffer(2)?;
        let (offsets, labels) = (self.place(1, 4 * (n + 1))?, self.place(4, 8 * n)?);
        let (heights, widths) = (self.place(6, 4 * n)?, self.place(8, 4 * n)?);
        let sums = if has_checksums { self.place(10, 8 * n)? } else { 0 };
        let words = |start: usize, n: usize| {
            let words = self.file[start..start + 4 * n].as_chunks::<4>().0;
            words.iter().map(|word| u32::from_le_bytes(*word)).enumerate()
        };
        let mut end = 0;
        for (row, offset) in words(offsets, n + 1) {
            if offset < end || offset as usize > length {
                return Err(format!("row {row}: it begins at byte {offset} of {length}, after {end}"));
            }
            end = offset;
        }
        for ((row, height), (_, width)) in words(heights, n).zip(words(widths, n)) {
            if !are_sides_allowed(ImageShape { height, width }) {
                let allowed = format!("allowed are sides of 1..={IMAGE_SIDE_MAX}");
                return Err(format!("row {row}: an image of {height}x{width}; {allowed}"));
            }
            smallest.height = smallest.height.min(height);
            smallest.width = smallest.width.min(width);
            largest.height = largest.height.max(height);
            largest.width = largest.width.max(width);
        }
        let image_bytes = end as usize;
        Ok(Batch { images, labels, offsets, heights, widths, sums, image_bytes, ..Batch::default() })
    }

    /// Checks the number of values of each column, with those within it, that none is null, and the number
    /// of buffers.
    fn check(&self, lengths: &[usize], buffers: usize) -> Result<(), String> {
        let nodes = self.batch.nodes().ok_or("it lists no columns")?;
        let is_whole = |node: &FieldNode, length: usize| {
            node.null_count() == 0 && usize::try_from(node.length()) == Ok(length)
        };
        if nodes.len() != lengths.len()
            || !nodes.iter().zip(lengths).all(|(node, &length)| is_whole(node, length))
        {
            return Err(format!("its columns do not hold {} rows without nulls", self.rows));
        }
        match self.batch.buffers().ok_or("it lists no buffers")?.len() {
            found if found == buffers => Ok(()),
            found => Err(format!("it has {found} buffers; expected {buffers}")),
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
        let buffer = self.batch.buffers().ok_or("it lists no buffers")?.get(buffer);
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
