use std::path::Path;
use std::time::{Duration, SystemTime};

use pba_datasets::{Measured, PackSpec, Packer, SplitName, packed, remove_partials};

use crate::{assert_holds, failure, noise, open_with_each_byte_flipped, opened, pack, shape, split};

#[test]
fn what_is_packed_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    // One row, and enough rows for several record batches with a short last one (16 MiB each).
    for (shape, rows) in [(shape(1, 1), 1), (shape(7, 5), 50), (shape(1024, 1024), 13)] {
        let labels: Vec<i64> = (0..rows).map(|row| row % 3).collect();
        let file = folder.path().join("train.arrow");
        let images = pack(&file, shape, &labels, &["a", "b", "\u{e9}\u{1}\""]);
        let read = packed::open(&file).unwrap();
        assert_holds(&read, &images, &labels);
        assert_eq!((read.shape(), read.classes()[2].as_str()), (Some(shape), "\u{e9}\u{1}\""));
        assert_eq!(read.bytes(), file.metadata().unwrap().len());
        assert!(read.verify());
    }
    // Nothing but the file is left behind.
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn what_a_killed_process_left_is_removed_and_nothing_else() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("key");
    std::fs::create_dir(&folder).unwrap();
    let hour = Duration::from_secs(3600);
    let file = |name: &str, age: Duration| {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    file(".packing-old", 2 * hour);
    file(".packing-being-written", Duration::ZERO);
    file("train.arrow", 2 * hour);
    assert_eq!(remove_partials(cache.path(), hour), 1);
    let mut left: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".packing-being-written", "train.arrow"]);
    assert_eq!(remove_partials(&cache.path().join("not there"), hour), 0);
}

#[test]
fn a_packed_folder_or_file_opens_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    pack(&folder.path().join("train.arrow"), shape(4, 4), &[0, 1, 0], &["a", "b"]);
    pack(&folder.path().join("val.arrow"), shape(4, 5), &[0], &["a", "b"]);
    pack(&folder.path().join("test.arrow"), shape(4, 4), &[1], &["a", "c"]);
    let dataset = opened(folder.path(), Path::new("unused")).unwrap();
    assert_eq!((dataset.format, dataset.classes()[1].as_str()), ("packed", "b"));
    assert_eq!(
        dataset.normalization(SplitName::Test).unwrap().mean,
        split(&dataset, SplitName::Train).mean()
    );
    // Another size is no harm: a base augmentation that crops makes them one.
    assert_eq!(split(&dataset, SplitName::Val).shape(), Some(shape(4, 5)));
    assert_eq!(
        failure(&dataset, SplitName::Test),
        "test.arrow: has 2 classes, but the other splits have 2, or different ones"
    );
    let alone = opened(&folder.path().join("test.arrow"), Path::new("unused")).unwrap();
    assert_eq!(split(&alone, SplitName::Test).label(0), 1);
    assert_ne!(alone.digest(), dataset.digest());
}

#[test]
fn digests_depend_on_everything_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |shape, labels: &[i64], classes: &[&str]| {
        let file = folder.path().join("x.arrow");
        pack(&file, shape, labels, classes);
        packed::open(&file).unwrap().digest().to_string()
    };
    let first = digest(shape(2, 3), &[0, 1], &["a", "b"]);
    assert_eq!(first, digest(shape(2, 3), &[0, 1], &["a", "b"]));
    for other in [
        digest(shape(3, 2), &[0, 1], &["a", "b"]),
        digest(shape(2, 3), &[1, 1], &["a", "b"]),
        digest(shape(2, 3), &[0, 1], &["a", "c"]),
        digest(shape(2, 3), &[0, 1, 0], &["a", "b"]),
    ] {
        assert_ne!(first, other);
    }
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    pack(&file, shape(4, 4), &[0, 1, 0, 1], &["a", "b"]);
    let bytes = std::fs::read(&file).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = packed::open(&file).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: not a packed split: ", file.display())), "{error}");
    }
    // Cut in the middle, the end kept: the footer promises more than there is.
    for cut in (8..bytes.len() - 8).step_by(8) {
        std::fs::write(&file, [&bytes[..8], &bytes[cut + 8..]].concat()).unwrap();
        let _ = packed::open(&file);
    }
}

#[test]
fn a_flipped_byte_never_panics_nor_leaves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    pack(&file, shape(4, 4), &[0, 1, 0, 1], &["a", "b"]);
    open_with_each_byte_flipped(&file, |split| {
        for row in 0..split.len() {
            assert!((split.decoded().unwrap().image(row).len(), split.label(row) < 2) == (48, true));
        }
    });
}

#[test]
fn damaged_pixels_are_found_by_verify() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(8, 8), &[0, 1], &["a", "b"]);
    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes.windows(192).position(|window| window == images[1]).unwrap();
    bytes[place + 5] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(!packed::open(&file).unwrap().verify());
}

#[test]
fn writing_fails_with_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("file");
    std::fs::write(&in_the_way, "").unwrap();
    let spec = PackSpec { classes: vec!["a".into()], rows: 1, source: String::new() };
    let error = Packer::create(&in_the_way.join("train.arrow"), Some(shape(1, 1)), spec.clone())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with(&format!("{}: cannot create the folder: ", in_the_way.display())), "{error}");

    // A packer that is dropped leaves nothing.
    let mut packer = Packer::create(&folder.path().join("train.arrow"), Some(shape(1, 1)), spec).unwrap();
    let error =
        packer.push(&noise(0, 3), &Measured::of(shape(1, 1), &noise(0, 3)), 1).unwrap_err().to_string();
    assert!(error.contains("label 1 is not allowed; allowed are 0..=0 (1 classes)"), "{error}");
    drop(packer);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}
