//! The packed form for images of different sizes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pba_datasets::{DatasetError, Images, Measured, PackSpec, Packer, Split, packed};
use pba_types::ImageShape;

use crate::{noise, open_with_each_byte_flipped, shape};

/// What a packed split holds, row by row: bytes that need not be an image, a size, a label.
type Row = (Vec<u8>, ImageShape, i64);

fn rows(count: usize, bytes_max: usize) -> Vec<Row> {
    let row = |row: usize| {
        let bytes = noise(row as u64, 1 + (row * 7919) % bytes_max);
        (bytes, shape(1 + row as u32 % 5, 3 + row as u32 % 7), row as i64 % 3)
    };
    (0..count).map(row).collect()
}

fn pack(to: &Path, rows: &[Row], classes: &[&str]) {
    let classes = classes.iter().map(|name| (*name).to_owned()).collect();
    let spec = PackSpec { classes, rows: rows.len() as u64, source: "a test".into() };
    let mut packer = Packer::create(to, None, spec).unwrap();
    for (bytes, size, label) in rows {
        let pixels = noise(1, size.rgb_bytes());
        packer.push(bytes, &Measured::of(*size, &pixels), *label).unwrap();
    }
    packer.finish().unwrap();
}

/// Reads every row.
fn read(split: &Split) -> Result<Vec<Row>, DatasetError> {
    split.read(0..split.len(), |samples| {
        let Images::Encoded(images) = samples.images() else { panic!("packed as encoded images") };
        let row = |row| Ok((images.bytes(row)?.to_vec(), images.size(row), samples.label(row)));
        (0..split.len()).map(row).collect()
    })?
}

#[test]
fn what_is_packed_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    // One row; many small ones; and enough for three record batches, which are closed by bytes.
    for (count, bytes_max) in [(1, 10), (500, 300), (90, 900_000)] {
        let rows = rows(count, bytes_max);
        pack(&file, &rows, &["a", "b", "c"]);
        let split = packed::open(&file).unwrap();
        assert!(read(&split).unwrap() == rows, "{count} rows of up to {bytes_max} bytes");
        assert_eq!((split.shape(), split.bytes()), (None, file.metadata().unwrap().len()));
        assert!(split.verify());
        let [smallest, largest] = split.sizes();
        let sides = |pick: fn(&ImageShape) -> u32| rows.iter().map(move |(_, size, _)| pick(size));
        let (heights, widths) = (|| sides(|size| size.height), || sides(|size| size.width));
        assert_eq!(smallest, shape(heights().min().unwrap(), widths().min().unwrap()));
        assert_eq!(largest, shape(heights().max().unwrap(), widths().max().unwrap()));
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing but the file is left behind");
}

#[test]
fn an_index_out_of_range_panics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    pack(&file, &rows(3, 50), &["a", "b", "c"]);
    let split = packed::open(&file).unwrap();
    for index in [3, u64::MAX] {
        assert!(
            catch_unwind(AssertUnwindSafe(|| split.read([], |samples| samples.label(index)))).is_err(),
            "{index}"
        );
    }
}

#[test]
fn digests_depend_on_everything() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |rows: &[Row], classes: &[&str]| {
        let file = folder.path().join("x.arrow");
        pack(&file, rows, classes);
        packed::open(&file).unwrap().digest().to_string()
    };
    let whole = rows(4, 100);
    let first = digest(&whole, &["a", "b", "c"]);
    assert_eq!(first, digest(&whole, &["a", "b", "c"]));
    assert_ne!(first, digest(&whole, &["a", "b", "d"]));
    assert_ne!(first, digest(&whole[..3], &["a", "b", "c"]));
    let changed = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = whole.clone();
        change(&mut rows);
        digest(&rows, &["a", "b", "c"])
    };
    assert_ne!(first, changed(&|rows| rows[2].0[0] ^= 1));
    assert_ne!(first, changed(&|rows| rows[2].1 = shape(9, 9)));
    assert_ne!(first, changed(&|rows| rows[2].2 = 0));
    assert_ne!(first, changed(&|rows| rows.swap(0, 3)));
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    pack(&file, &rows(4, 60), &["a", "b", "c"]);
    let bytes = std::fs::read(&file).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = packed::open(&file).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: not a packed split: ", file.display())), "{error}");
    }
    // Cut in the middle, the end kept.
    for cut in (8..bytes.len() - 8).step_by(8) {
        std::fs::write(&file, [&bytes[..8], &bytes[cut + 8..]].concat()).unwrap();
        let _ = packed::open(&file).map(|split| read(&split));
    }
}

#[test]
fn a_flipped_byte_never_panics_nor_leaves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let written = rows(4, 60);
    pack(&file, &written, &["a", "b", "c"]);
    open_with_each_byte_flipped(&file, |split| {
        // What is not refused is what was written.
        match read(split) {
            Ok(found) => assert!(found == written),
            Err(_) => assert_eq!(split.damaged_batches(), 1),
        }
    });
}

#[test]
fn damaged_columns_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let rows: Vec<Row> = (0..4).map(|row| (noise(row, 9), shape(101, 202), 1)).collect();
    pack(&file, &rows, &["a", "b", "c"]);
    let bytes = std::fs::read(&file).unwrap();
    let damage = |pattern: &[u8], value: &[u8], says: &str| {
        let place = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
        let mut bytes = bytes.clone();
        bytes[place..place + value.len()].copy_from_slice(value);
        std::fs::write(&file, &bytes).unwrap();
        let error = packed::open(&file).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    };
    let words = |words: [u32; 4]| words.map(u32::to_le_bytes).concat();
    damage(
        &words([101; 4]),
        &words([101, 0, 101, 101]),
        "row 1: an image of 0x202; allowed are sides of 1..=4096",
    );
    damage(&words([202; 4]), &words([202, 202, 5000, 1]), "row 2: an image of 101x5000");
    damage(&words([0, 9, 18, 27]), &words([0, 9, 8, 27]), "row 2: it begins at byte 8 of 36, after 9");
    damage(&words([0, 9, 18, 27]), &words([0, 9, 18, 99]), "row 3: it begins at byte 99 of 36, after 18");
    damage(&[1_i64; 4].map(i64::to_le_bytes).concat(), &3_i64.to_le_bytes(), "row 0: label 3 is not allowed");
}

#[test]
fn descriptions_out_of_bounds_are_refused() {
    let spec = PackSpec { classes: vec!["a".into()], rows: 0, source: String::new() };
    let error = Packer::create(Path::new("unused.arrow"), None, spec).err().unwrap();
    assert_eq!(error.to_string(), "cannot pack a number of rows of 0; allowed are 1 and more");
}
