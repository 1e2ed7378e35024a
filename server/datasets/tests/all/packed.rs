use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pba_datasets::{
    Dataset, Images, Measured, PackSpec, Packer, SplitName, packed, remove_earlier_versions, remove_partials,
};
use tempfile::TempDir;

use crate::{
    assert_holds, failure, label_of, noise, open_with_each_byte_flipped, opened, pack, pixels, shape, split,
};

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

fn names(folder: &Path) -> Vec<String> {
    let files = folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_process_left_is_removed_and_nothing_else() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("key");
    std::fs::create_dir(&folder).unwrap();
    let spec = PackSpec { classes: vec!["a".into()], rows: 1, source: String::new() };
    let packing = Packer::create(&folder.join("test.arrow"), Some(shape(1, 1)), spec).unwrap();
    // Whatever its times say: that it is being written is what counts, and clocks jump.
    let being_written = names(&folder);
    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    let times = |name: &str| std::fs::File::options().write(true).open(folder.join(name)).unwrap();
    times(&being_written[0]).set_modified(old).unwrap();
    for (name, time) in [(".packing-left", SystemTime::now()), (".packing-old", old), ("train.arrow", old)] {
        std::fs::write(folder.join(name), "").unwrap();
        times(name).set_modified(time).unwrap();
    }
    assert_eq!(remove_partials(cache.path()), 2);
    assert_eq!(names(&folder), [&being_written[0], "train.arrow"]);
    drop(packing);
    assert_eq!(names(&folder), ["train.arrow"]);
    assert_eq!(remove_partials(&cache.path().join("not there")), 0);
}

#[test]
fn a_file_in_the_place_of_another_is_packed_again() {
    let (folder, other, cache) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (number, source) in [&folder, &other].into_iter().enumerate() {
        for (name, labels) in [("train", [0, 1, 0]), ("test", [1, 0, 0])] {
            pack(
                &source.path().join(format!("{name}.arrow")),
                shape(4, 4 + number as u32),
                &labels,
                &["a", "b"],
            );
        }
    }
    let open = |source: &TempDir| opened(source.path(), cache.path()).unwrap();
    let expected = [open(&folder).digest(), open(&other).digest()];
    let path = |dataset: &Dataset, name| split(dataset, name).path().to_owned();
    let [train, test] = [SplitName::Train, SplitName::Test].map(|name| path(&open(&folder), name));
    let others = path(&open(&other), SplitName::Train);
    assert!(open(&folder).packed_again.is_empty());
    let aside = cache.path().join("aside");
    let exchange = |one: &Path, another: &Path| {
        std::fs::rename(one, &aside).unwrap();
        std::fs::rename(another, one).unwrap();
        std::fs::rename(&aside, another).unwrap();
    };
    for (one, another) in [(&train, &test), (&train, &others)] {
        exchange(one, another);
        let refused = packed::open(one).unwrap_err().to_string();
        assert!(
            refused.ends_with("damaged: it was packed to be another split, or of another dataset"),
            "{refused}"
        );
        let mended = open(&folder);
        assert_eq!(mended.packed_again[&SplitName::Train].to_string(), refused);
        assert_eq!([mended.digest(), open(&other).digest()], expected);
    }
}

#[test]
fn what_an_earlier_version_packed_into_the_cache_is_removed_and_nothing_else() {
    let packed_1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/packed_1");
    let (cache, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pack(&source.path().join("train.arrow"), shape(4, 4), &[0], &["a"]);
    let current = opened(source.path(), cache.path()).unwrap();
    let key = |digit: &str| digit.repeat(64);
    let [old, named, locked, more] = ["a", "b", "c", "d"].map(key);
    // A folder that is not named after a key is its owner's.
    for name in [&old, &named, &locked, &more, "mine"] {
        let folder = cache.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for file in ["train.arrow", "test.arrow"] {
            std::fs::copy(packed_1.join(file), folder.join(file)).unwrap();
        }
    }
    std::fs::write(cache.path().join(&more).join("notes.txt"), "whose?").unwrap();
    std::fs::create_dir(cache.path().join("empty")).unwrap();
    let open = std::fs::File::open(cache.path().join(&locked).join("test.arrow")).unwrap();
    open.lock_shared().unwrap();
    let before = names(cache.path());
    let named = [cache.path().join(&named).join("train.arrow"), cache.path().join("nowhere")];
    assert_eq!(remove_earlier_versions(cache.path(), &named), 1);
    let left: Vec<String> = before.into_iter().filter(|name| *name != old).collect();
    assert_eq!(names(cache.path()), left);
    drop(open);
    assert_eq!(remove_earlier_versions(cache.path(), &named), 1);
    assert!(!cache.path().join(&locked).exists());
    assert_eq!(opened(source.path(), cache.path()).unwrap().digest(), current.digest());
}

#[test]
fn a_packed_folder_or_file_opens_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    pack(&folder.path().join("train.arrow"), shape(4, 4), &[0, 1, 0], &["a", "b"]);
    pack(&folder.path().join("val.arrow"), shape(4, 5), &[0], &["a", "b"]);
    pack(&folder.path().join("test.arrow"), shape(4, 4), &[1], &["a", "c"]);
    let cache = tempfile::tempdir().unwrap();
    let dataset = opened(folder.path(), cache.path()).unwrap();
    assert_eq!((dataset.format, dataset.classes()[1].as_str()), ("packed", "b"));
    assert_eq!(pba_datasets::format(folder.path()), Ok("packed"));
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
    let alone = opened(&folder.path().join("test.arrow"), cache.path()).unwrap();
    assert_eq!(label_of(&split(&alone, SplitName::Test), 0), 1);
    assert_ne!(alone.digest(), dataset.digest());
    // It was copied: what happens to the files later is of no consequence.
    for name in ["train", "val", "test"] {
        std::fs::write(folder.path().join(format!("{name}.arrow")), "").unwrap();
    }
    for name in [SplitName::Train, SplitName::Val] {
        split(&dataset, name).check_all(&go_on).unwrap();
    }
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_damaged_packed_file_is_not_taken_into_the_cache() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(8, 8), &[0, 1], &["a", "b"]);
    flip(&file, &images[1], 7);
    let refused = failure(&opened(&file, cache.path()).unwrap(), SplitName::Train);
    let expected = format!("{}, record batch 0, samples 0..=1: damaged: its checksum is ", file.display());
    assert!(refused.starts_with(&expected), "{refused}");
    let left = cache.path().read_dir().unwrap().flat_map(|folder| folder.unwrap().path().read_dir().unwrap());
    assert_eq!(left.count(), 0, "nothing is left in the cache");
}

/// Flips a bit of the place in a file where some bytes stand.
#[track_caller]
fn flip(file: &Path, bytes: &[u8], place: usize) {
    let mut whole = std::fs::read(file).unwrap();
    let start = memchr::memmem::find(&whole, bytes).expect("they are there");
    whole[start + place] ^= 1;
    // In place, as a disk would.
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all(&whole).unwrap();
}

/// Files that version 0.1 packed before it had checksums: `train.arrow` of pixels, `test.arrow` encoded.
#[test]
fn files_of_an_earlier_version_are_packed_again() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/packed_1");
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["train.arrow", "test.arrow"] {
        std::fs::copy(old.join(name), folder.path().join(name)).unwrap();
    }
    let refused = packed::open(&old.join("train.arrow")).unwrap_err().to_string();
    assert!(refused.ends_with("it is of an earlier version, without checksums"), "{refused}");
    let dataset = opened(folder.path(), cache.path()).unwrap();
    let (train, test) = (split(&dataset, SplitName::Train), split(&dataset, SplitName::Test));
    // The digests and statistics that they had then.
    assert_eq!(
        [&train, &test].map(|split| split.digest().to_string()),
        [
            "b028e650bdf057ae0c9c3300dfd7c44d95dc896f97b91dc5361bdbf8c8d1a21b",
            "442b994537fff2a72b6386af658783a3f12197fe4307fdb93195a54d6cb09a6d"
        ]
    );
    let images: Vec<Vec<u8>> = (0..5).map(|row| noise(row, 60)).collect();
    assert_holds(&train, &images, &[0, 1, 1, 0, 1]);
    assert!(train.path().starts_with(cache.path()) && train.verify() && test.verify());
    assert!(train.mean()[0] > 0.4 && test.std()[0] > 0.1);
    for split in [train, test] {
        split.check_all(&go_on).unwrap();
    }
    // What is in no digest is measured again.
    let (file, mean) = (folder.path().join("train.arrow"), split(&dataset, SplitName::Train).mean());
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(8).position(|window| window == b"pba.mean").unwrap();
    let digit = bytes[..at].windows(3).rposition(|text| text == b"[0.").unwrap() + 3;
    bytes[digit] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(split(&opened(folder.path(), cache.path()).unwrap(), SplitName::Train).mean(), mean);
    // Damage is found by the digest.
    flip(&folder.path().join("train.arrow"), &images[3], 0);
    let refused = failure(&opened(folder.path(), cache.path()).unwrap(), SplitName::Train);
    assert!(refused.contains("damaged: its digest is ") && refused.contains(", and it says "), "{refused}");
}

/// A pipe would be waited for, and a split that is passed over would go unnoticed.
#[test]
fn what_is_no_file_is_refused_at_once() {
    for name in ["train.arrow", "train.parquet"] {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = std::process::Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap();
        assert!(made.success());
        let refused = match opened(folder.path(), cache.path()) {
            Ok(dataset) => failure(&dataset, SplitName::Train),
            Err(error) => error.to_string(),
        };
        assert!(refused.contains("not a regular file"), "{name}: {refused}");
    }
}

#[test]
fn damage_under_an_open_split_is_found_and_forgotten_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    // Four record batches of three images of twenty blocks each.
    let labels = [0, 1].repeat(6);
    let images = pack(&file, shape(1024, 1700), &labels, &["a", "b"]);
    let split = packed::open(&file).unwrap();
    assert_eq!((split.record_batches(), split.damaged_batches()), (4, 0));
    let check = |index| split.read([index], |_| ());
    let mut reads = 0;
    split
        .read([0, 11], |_| {
            reads += 1;
            if reads == 1 {
                flip(&file, &images[5], 300_000);
            }
        })
        .unwrap();
    assert_eq!(reads, 2, "what is read while the file changes is read again");
    // The other images of the same record batch are whole.
    for index in [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11] {
        assert_eq!(check(index), Ok(()), "image {index}");
    }
    assert_eq!(split.damaged_batches(), 0, "it was not touched");
    let damaged = split.read([0, 5], |_| ()).unwrap_err();
    let expected = format!("{}, record batch 1, sample 5: damaged: its checksum is ", file.display());
    assert!(damaged.to_string().starts_with(&expected), "{damaged}");
    assert_eq!(check(5).unwrap_err(), damaged, "it stays damaged");
    assert_eq!(split.check_known([0, 2, 5]).unwrap_err(), damaged, "it is known now");
    assert_eq!((split.check_known([0, 2, 4, 6, 11]), split.damaged_batches()), (Ok(()), 1));
    assert_eq!(split.check_all(&go_on), Err(damaged));
    // Mended in place.
    flip(&file, &[&images[5][..300_000], &[images[5][300_000] ^ 1]].concat(), 300_000);
    assert_eq!((split.check_known(0..12), split.damaged_batches()), (Ok(()), 0));
    split.read(0..12, |_| ()).unwrap();
    split.check_all(&go_on).unwrap();
}

/// Writes over a byte of a file through a map that is there, as another program may: no time of the file tells.
struct Writer(memmap2::MmapMut);

impl Writer {
    #[allow(unsafe_code, reason = "a map that others read")]
    fn new(file: &Path) -> Writer {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
        // SAFETY: what is read meanwhile is read through another map, as plain integers.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&opened).unwrap() };
        // From now on each page may be written to without the kernel's knowing.
        for place in (0..map.len()).step_by(512) {
            let byte = std::hint::black_box(map[place]);
            map[place] = byte;
        }
        Writer(map)
    }

    fn flip(&mut self, bytes: &[u8], place: usize) {
        let start = memchr::memmem::find(&self.0, bytes).expect("they are there");
        self.0[start + place] ^= 1;
    }
}

/// Packs encoded images, which need not be images, of the classes 0 and 1 in turn.
fn pack_encoded(to: &Path, count: u64) -> Vec<Vec<u8>> {
    let spec = PackSpec { classes: vec!["a".into(), "b".into()], rows: count, source: String::new() };
    let mut packer = Packer::create(to, None, spec).unwrap();
    let images: Vec<Vec<u8>> = (0..count).map(|row| noise(row, 300)).collect();
    for (row, image) in images.iter().enumerate() {
        packer.push(image, &Measured::of(shape(1, 1), &[0; 3]), row as i64 % 2).unwrap();
    }
    packer.finish().unwrap();
    images
}

#[test]
fn an_encoded_image_is_compared_each_time_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack_encoded(&file, 40);
    let (mut writer, split) = (Writer::new(&file), packed::open(&file).unwrap());
    let read = |row| {
        split.read([row], |samples| match samples.images() {
            Images::Encoded(images) => images.bytes(row).map(<[u8]>::to_vec),
            Images::Decoded(_) => unreachable!("they are encoded"),
        })
    };
    for row in 0..40 {
        assert_eq!(read(row).unwrap().unwrap(), images[row as usize]);
    }
    writer.flip(&images[7], 100);
    let damaged = read(7).unwrap().unwrap_err().to_string();
    assert!(damaged.contains("record batch 0, sample 7: damaged"), "{damaged}");
    assert!(read(8).unwrap().is_ok() && split.damaged_batches() == 1);
    // So are labels.
    let labels: Vec<u8> = (0..40).flat_map(|row| i64::to_le_bytes(row % 2)).collect();
    writer.flip(&labels, 8 * 9);
    let damaged = read(8).unwrap_err().to_string();
    assert!(damaged.contains("record batch 0, samples 0..=39: damaged"), "{damaged}");
}

/// Another program writes while pixels are read, and puts the time back: what was read is read again.
#[test]
fn a_write_that_puts_the_time_back_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(30, 40), &[0, 1, 0], &["a", "b"]);
    let split = packed::open(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let place = whole.windows(images[1].len()).position(|window| window == images[1]).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let write = |byte: u8| {
        // Longer than a tick of the clock.
        std::thread::sleep(Duration::from_millis(20));
        let other = File::options().write(true).open(&file).unwrap();
        other.write_all_at(&[byte], place as u64).unwrap();
        other.set_modified(modified).unwrap();
    };
    let mut reads = 0;
    let found = split.read([1], |samples| {
        reads += 1;
        if reads == 1 {
            write(!images[1][0]);
        }
        let found = samples.decoded().unwrap().image(1).to_vec();
        if reads == 1 {
            write(images[1][0]);
        }
        found
    });
    assert!(found.unwrap() == images[1] && reads > 1, "{reads}");
}

#[test]
fn pixels_that_were_whole_are_compared_again_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(300, 400), &[0, 1, 0], &["a", "b"]);
    let (mut writer, split) = (Writer::new(&file), packed::open(&file).unwrap());
    split.check_again(0..3).unwrap();
    split.read(0..3, |_| ()).unwrap();
    writer.flip(&images[2], 359_999);
    split.check_again([0]).unwrap();
    let damaged = split.check_again([0, 2]).unwrap_err().to_string();
    assert!(damaged.contains("record batch 0, sample 2: damaged"), "{damaged}");
    assert_eq!(split.read([2], |_| ()).unwrap_err().to_string(), damaged, "it is known now");
    writer.flip(&[&images[2][..359_999], &[images[2][359_999] ^ 1]].concat(), 359_999);
    split.check_again(0..3).unwrap();
    split.read(0..3, |_| ()).unwrap();
}

#[test]
fn a_scrub_finds_damage_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(300, 400), &[0, 1, 0], &["a", "b"]);
    let split = packed::open(&file).unwrap();
    let read = std::cell::Cell::new(0);
    let pause = |bytes| {
        read.set(read.get() + bytes);
        ControlFlow::Continue(())
    };
    split.scrub(0, &pause).unwrap();
    assert_eq!(read.get(), 3 * 300 * 400 * 3);
    for image in &images {
        flip(&file, image, 359_999);
        let found = split.scrub(0, &pause).unwrap_err().to_string();
        assert!(found.contains("record batch 0, sample"), "{found}");
        assert_eq!(split.damaged_batches(), 1);
        flip(&file, &[&image[..359_999], &[image[359_999] ^ 1]].concat(), 359_999);
        split.scrub(0, &pause).unwrap();
        assert_eq!(split.damaged_batches(), 0);
    }
}

#[test]
fn a_file_that_is_cut_under_an_open_split_is_refused_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.arrow");
    let images = pack(&file, shape(100, 100), &[0, 1, 0], &["a", "b"]);
    let whole = std::fs::read(&file).unwrap();
    let split = packed::open(&file).unwrap();
    let cut = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let read = split.read(0..3, |samples| {
        cut.set_len(4096).unwrap();
        // As a reader would then.
        assert!(samples.decoded().unwrap().image(2).iter().all(|&byte| byte == 0));
    });
    for refused in [read, split.read([0], |_| ()), split.check_all(&go_on), split.check_again([0])] {
        let refused = refused.unwrap_err().to_string();
        let expected = format!("{}: damaged: it has 4096 bytes; expected {}", file.display(), whole.len());
        assert_eq!(refused, expected);
    }
    assert_eq!(split.damaged_batches(), 1);
    // What was read as zeros may be in use: this split is of no use any more, but the file is.
    (&cut).write_all(&whole).unwrap();
    let refused = split.read([0], |_| ()).unwrap_err().to_string();
    assert!(refused.ends_with("a part of it could not be read; it must be opened again"), "{refused}");
    assert_holds(&packed::open(&file).unwrap(), &images, &[0, 1, 0]);
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
    let whole = packed::open(&file).unwrap();
    let (images, labels): (Vec<_>, Vec<_>) =
        (0..4).map(|row| (pixels(&whole, row), label_of(&whole, row))).unzip();
    let digest = whole.digest();
    drop(whole);
    open_with_each_byte_flipped(&file, |split| {
        for row in 0..split.len() {
            let read = split
                .read([row], |samples| (samples.decoded().unwrap().image(row).len(), samples.label(row) < 2));
            assert!(read.is_ok_and(|read| read == (48, true)) || split.damaged_batches() > 0);
        }
        // What is not refused is what was written.
        if split.read(0..split.len(), |_| ()).is_ok() {
            assert_holds(split, &images, &labels);
            assert_eq!((split.digest(), split.classes()), (digest, &["a".to_owned(), "b".to_owned()][..]));
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
