//! Packed files: what is accepted is read without a fault, and of a file that was accepted any damage is
//! refused, or changes nothing. A file in the cache may be damaged, one of a user's may be anything.

use std::path::{Path, PathBuf};

use arrow_ipc::{Block, root_as_footer, root_as_message};
use pba_datasets::{DatasetError, Measured, PackSpec, Packer, SplitName, packed};
use pba_types::ImageShape;
use twox_hash::XxHash3_64;

use crate::fuzz::rows::{Place, Rows, imported};
use crate::fuzz::{Target, damaged, dice, image};

pub(super) const TARGET: Target = Target {
    name: "packed",
    check,
    mend: |bytes| mend(bytes),
    seeds,
    words: &[
        b"ARROW1",
        b"pba-packed/2",
        b"pba-packed-encoded/2",
        b"pba-packed/1",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x80",
    ],
    bytes_max: 16 << 10,
    mutations: 360,
};

/// The place in a cache of all files that are read, which they name.
fn in_cache(folder: &Path) -> PathBuf {
    let folder = folder.join("fuzzed");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder.join("train.arrow")
}

fn read(path: &Path, bytes: &[u8]) -> Result<Rows, DatasetError> {
    std::fs::write(path, bytes).expect("a file can be written");
    let split = packed::open(path)?;
    let rows = Rows::of(&split);
    let scrubbed = (0..split.record_batches())
        .try_for_each(|batch| split.scrub(batch, &|_| std::ops::ControlFlow::Continue(())));
    assert_eq!(rows.is_ok(), scrubbed.is_ok(), "a scrub finds what a stream does: {scrubbed:?}");
    assert_eq!(rows.is_err(), split.damaged_batches() > 0, "damage that was found is known");
    rows
}

fn check(bytes: &[u8]) {
    let place = Place::new();
    let path = in_cache(place.path());
    let rows = read(&path, bytes);
    if let Ok(rows) = &rows {
        let mut dice = dice(bytes);
        for _ in 0..4 {
            let damaged = damaged(bytes, &mut dice);
            if let Ok(found) = read(&path, &damaged) {
                assert!(found == *rows, "damage that was not noticed");
            }
        }
    }
    // As a user's file, which is copied, or, if it is of an earlier version, packed again.
    if bytes.starts_with(b"ARROW1") {
        place.write("train.arrow", bytes);
        match (place.open("train.arrow"), rows) {
            (Ok(dataset), Ok(rows)) => {
                read(&path, bytes).expect("as above");
                let is_true = packed::open(&path).expect("as above").verify();
                match dataset.split(SplitName::Train).expect("it is called so") {
                    Ok(copied) => {
                        assert!(is_true, "a copy of what lies about its digest");
                        let copied = Rows::of(copied);
                        assert!(copied.is_ok_and(|copied| copied == rows), "the copy holds something else");
                    }
                    Err(error) => assert!(!is_true, "what opens in place can be copied: {error}"),
                }
            }
            (Ok(dataset), Err(error)) => {
                // What is whole may be another file than the one that was packed in this place.
                let may_copy = ["of an earlier version", "it was packed to be another split"];
                let may_copy = may_copy.iter().any(|reason| error.to_string().contains(reason));
                let is_copied = dataset.splits[&SplitName::Train].is_ok();
                assert!(may_copy || !is_copied, "a copy of what is refused: {error}");
                if is_copied {
                    imported(&dataset, SplitName::Train);
                }
            }
            (Err(error), _) => panic!("it has a format: {error}"),
        }
    }
}

/// Gives a packed file the checksums that its content has, unless too much of it is wrong.
fn mend(bytes: &mut [u8]) {
    let _ = sealed(bytes);
}

fn sealed(bytes: &mut [u8]) -> Option<()> {
    let end = bytes.len().checked_sub(10)?;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().ok()?) as usize;
    let start = end.checked_sub(length)?;
    let (place_of_all, sums, first, edits) = {
        let footer = root_as_footer(&bytes[start..end]).ok()?;
        let place = |key: &str| {
            let mut entries = footer.custom_metadata()?.iter();
            let text = entries.find(|entry| entry.key() == Some(key))?.value()?;
            Some((text.as_ptr() as usize - bytes.as_ptr() as usize, text.len()))
        };
        let mut sums = String::new();
        let mut edits = Vec::new();
        let blocks: Vec<&Block> = footer.recordBatches()?.iter().collect();
        for block in &blocks {
            // What cannot be read keeps the checksums that it had.
            let Some((sum, images)) = sums_of(bytes, block, &mut edits) else { break };
            sums += &sum;
            sums += &images;
        }
        (place("pba.checksum")?, (place("pba.checksums")?, sums), blocks.first()?.offset(), edits)
    };
    for (place, sum) in edits {
        bytes[place..place + 8].copy_from_slice(&u64::to_le_bytes(sum));
    }
    let ((place, length), text) = sums;
    let text = &text.as_bytes()[..text.len().min(length)];
    bytes[place..place + text.len()].copy_from_slice(text);
    let (place, length) = place_of_all;
    let hole = b"\x01--checksum---\x01-";
    if length == hole.len() {
        bytes[place..place + length].copy_from_slice(hole);
        let first = bytes.get(..usize::try_from(first).ok()?)?;
        let sum = format!("{:016x}", XxHash3_64::oneshot(&[first, &bytes[start..end]].concat()));
        bytes[place..place + length].copy_from_slice(sum.as_bytes());
    }
    Some(())
}

/// The checksums of a record batch as the footer has them: of its columns, and of its blocks of pixels. Those
/// of encoded images are a column, whose places and values are added to `edits`; its own checksum is then of
/// what will stand there.
fn sums_of(bytes: &[u8], block: &Block, edits: &mut Vec<(usize, u64)>) -> Option<(String, String)> {
    let start = usize::try_from(block.offset()).ok()?;
    let body = start.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
    let message = root_as_message(bytes.get(start + 8..body)?).ok()?;
    let batch = message.header_as_record_batch()?;
    let rows = usize::try_from(batch.length()).ok().filter(|&rows| rows < bytes.len())?;
    let buffer = |number: usize, length: usize| {
        let buffer = batch.buffers()?;
        let start = body.checked_add(
            usize::try_from((number < buffer.len()).then(|| buffer.get(number))?.offset()).ok()?,
        )?;
        Some((start, bytes.get(start..start.checked_add(length)?)?))
    };
    let sum = |bytes: &[u8]| XxHash3_64::oneshot(bytes);
    let text = |sum: u64| format!("{sum:016x}");
    if batch.buffers()?.len() == 5 {
        let length = usize::try_from(batch.buffers()?.get(2).length()).ok()?;
        let (_, pixels) = buffer(2, length)?;
        let nodes = batch.nodes()?;
        let items = (nodes.len() > 1).then(|| nodes.get(1).length())?;
        let pixels = pixels.get(..usize::try_from(items).ok()?)?;
        let blocks = pixels.chunks(256 << 10).map(|block| text(sum(block))).collect();
        return Some((text(sum(buffer(4, 8 * rows)?.1)), blocks));
    }
    let (images, _) = buffer(2, 0)?;
    let (_, offsets) = buffer(1, 4 * (rows + 1))?;
    let offsets: Vec<usize> =
        offsets.as_chunks::<4>().0.iter().map(|offset| u32::from_le_bytes(*offset) as usize).collect();
    let (sums_start, _) = buffer(10, 8 * rows)?;
    let mut sums = Vec::new();
    for (row, ends) in offsets.windows(2).enumerate() {
        let image = sum(bytes.get(images.checked_add(ends[0])?..images.checked_add(ends[1])?)?);
        edits.push((sums_start + 8 * row, image));
        sums.extend(image.to_le_bytes());
    }
    let columns = [
        buffer(4, 8 * rows)?.1,
        buffer(1, 4 * (rows + 1))?.1,
        buffer(6, 4 * rows)?.1,
        buffer(8, 4 * rows)?.1,
        &sums,
    ];
    Some((text(sum(&columns.concat())), String::new()))
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = in_cache(folder.path());
    let spec = |rows| {
        let classes = ["a", "b", "c"].map(str::to_owned).into();
        PackSpec { classes, rows, source: "a seed".to_owned() }
    };
    let mut seeds = vec![
        std::fs::read(crate::repository("server/datasets/tests/all/packed_1/train.arrow"))
            .expect("it is committed"),
        std::fs::read(crate::repository("server/datasets/tests/all/packed_1/test.arrow"))
            .expect("it is committed"),
    ];
    for (height, width, rows) in [(2, 3, 4), (1, 1, 1), (8, 5, 7)] {
        let shape = ImageShape { height, width };
        let mut packer = Packer::create(&path, Some(shape), spec(rows)).expect("a file can be made");
        for row in 0..rows {
            let pixels: Vec<u8> = (0..shape.rgb_bytes()).map(|i| (i as u64 * 37 + row * 11) as u8).collect();
            packer
                .push(&pixels, &Measured::of(shape, &pixels), (row % 3) as i64)
                .expect("a row can be written");
        }
        packer.finish().expect("a file can be written");
        seeds.push(std::fs::read(&path).expect("it was written"));
    }
    let files = ["one_pixel.jpg", "one_pixel.png", "bilevel.png"].map(image);
    let mut packer = Packer::create(&path, None, spec(files.len() as u64)).expect("a file can be made");
    for (row, file) in files.iter().enumerate() {
        let pba_datasets::Image { shape, pixels } = pba_datasets::decode(file).expect("a picture");
        packer.push(file, &Measured::of(shape, &pixels), row as i64).expect("a row can be written");
    }
    packer.finish().expect("a file can be written");
    seeds.push(std::fs::read(&path).expect("it was written"));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is whole has the checksums that are given to what is mutated.
    #[test]
    fn whole_files_need_no_mending() {
        let seeds = seeds();
        for (number, seed) in seeds.iter().enumerate() {
            let mut mended = seed.clone();
            let is_current = number >= 2;
            assert_eq!(super::sealed(&mut mended).is_some(), is_current, "seed {number}");
            assert!(mended == *seed, "seed {number}");
            if is_current {
                let at = seed.len() / 3;
                mended[at] ^= 1;
                super::sealed(&mut mended);
                assert!(mended != *seed);
            }
        }
    }
}
