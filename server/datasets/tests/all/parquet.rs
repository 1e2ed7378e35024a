use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use arrow_array::{
    ArrayRef, BinaryArray, Int8Array, Int64Array, LargeBinaryArray, RecordBatch, StringArray, StructArray,
};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use pba_datasets::{DatasetError, Progress, SplitName, open};

use crate::{assert_holds, encoded_image, failure, label_of, noise, opened, shape, split};

fn png_of(pixels: &[u8], width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, pixels.len() as u32 / 3 / width);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

/// Images as PNG, with their pixels.
fn images(rows: usize, seed: u64) -> (Vec<Vec<u8>>, Vec<Option<Vec<u8>>>) {
    let pixels: Vec<Vec<u8>> = (0..rows).map(|row| noise(seed + row as u64, 8 * 6 * 3)).collect();
    let encoded = pixels.iter().map(|pixels| Some(png_of(pixels, 6))).collect();
    (pixels, encoded)
}

fn hub_struct(encoded: &[Option<Vec<u8>>]) -> ArrayRef {
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let bytes = BinaryArray::from_iter(encoded.iter());
    let paths = StringArray::from_iter(encoded.iter().map(|_| Some("a.png")));
    Arc::new(StructArray::new(fields, vec![Arc::new(bytes), Arc::new(paths)], None))
}

fn numbers(labels: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(labels.to_vec()))
}

fn write(file: &Path, columns: &[(&str, ArrayRef)], hub: Option<&str>, compression: Compression) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let metadata: HashMap<String, String> =
        hub.map(|hub| ("huggingface".into(), hub.into())).into_iter().collect();
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata.clone()));
    let pairs = metadata.into_iter().map(|(k, v)| parquet::file::metadata::KeyValue::new(k, v)).collect();
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(100))
        .set_key_value_metadata(Some(pairs))
        .build();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(file).unwrap(), schema.clone(), Some(properties)).unwrap();
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    writer.write(&RecordBatch::try_new(schema, arrays).unwrap()).unwrap();
    writer.close().unwrap();
}

struct Folder {
    source: tempfile::TempDir,
    cache: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { source: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, columns: &[(&str, ArrayRef)], hub: Option<&str>) {
        write(&self.source.path().join(name), columns, hub, Compression::UNCOMPRESSED);
    }

    #[track_caller]
    fn open(&self) -> pba_datasets::Dataset {
        opened(self.source.path(), self.cache.path()).unwrap()
    }

    #[track_caller]
    fn fails(&self, columns: &[(&str, ArrayRef)], hub: Option<&str>, message: &str) {
        self.write("train.parquet", columns, hub);
        assert_eq!(failure(&self.open(), SplitName::Train), message);
    }
}

const HUB: &str = r#"{"info": {"features": {"img": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;

#[test]
fn the_layout_of_the_hub_is_read_in_every_compression() {
    let (pixels, encoded) = images(300, 0);
    let labels: Vec<i64> = (0..300).map(|row| row % 2).collect();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
    ];
    let mut digests = Vec::new();
    for codec in codecs {
        let folder = Folder::new();
        let file = folder.source.path().join("data/train-00000-of-00001.parquet");
        write(&file, &[("img", hub_struct(&encoded)), ("label", numbers(&labels))], Some(HUB), codec);
        let seen = Mutex::new(Vec::new());
        let note = |progress: Progress| {
            seen.lock().unwrap().push(progress.rows_done);
            ControlFlow::Continue(())
        };
        let dataset = open("pets", folder.source.path(), folder.cache.path(), &note).unwrap();
        let train = split(&dataset, SplitName::Train);
        assert_holds(&train, &pixels, &labels);
        assert_eq!(
            (train.classes(), train.shape()),
            (&["cat".to_owned(), "dog".to_owned()][..], Some(shape(8, 6)))
        );
        assert_eq!(*seen.lock().unwrap(), [0, 128, 256, 300]);
        // The second time, nothing is decoded.
        let never = |_| panic!("it was imported before");
        let again = open("pets", folder.source.path(), folder.cache.path(), &never).unwrap();
        assert_eq!(again.digest(), dataset.digest());
        digests.push(dataset.digest());
    }
    assert!(digests.iter().all(|digest| digest == &digests[0]));
}

#[test]
fn a_cancelled_import_leaves_only_finished_splits() {
    let folder = Folder::new();
    let (pixels, encoded) = images(300, 0);
    let columns = [("img", hub_struct(&encoded)), ("label", numbers(&[0; 300]))];
    folder.write("train.parquet", &columns, None);
    folder.write("test.parquet", &columns, None);
    let open = |watch: &dyn Fn(Progress) -> ControlFlow<()>| {
        open("pets", folder.source.path(), folder.cache.path(), watch)
    };
    for last in [0, 128, 256, 300] {
        for cancelled in [SplitName::Train, SplitName::Test] {
            let is_last = |at: Progress| at.split == cancelled && at.rows_done == last;
            let error =
                open(&|at| if is_last(at) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
            assert_eq!(error.unwrap_err(), DatasetError::Cancelled);
            let files = folder.cache.path().read_dir().unwrap().flat_map(|key| {
                let key = key.unwrap().path();
                let files: Vec<_> = key.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
                // So that the next round packs it again.
                files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
                files
            });
            let names: Vec<_> = files.map(|file| file.file_name().unwrap().to_owned()).collect();
            let finished: &[&str] = if cancelled == SplitName::Train { &[] } else { &["train.arrow"] };
            assert_eq!(names, finished, "{cancelled} at {last}");
        }
    }
    let dataset = open(&|_| ControlFlow::Continue(())).unwrap();
    assert_holds(&split(&dataset, SplitName::Test), &pixels, &[0; 300]);
}

#[test]
fn a_changed_source_is_imported_anew() {
    let folder = Folder::new();
    let (_, encoded) = images(2, 0);
    let before = {
        folder.write("train.parquet", &[("image", hub_struct(&encoded)), ("label", numbers(&[0, 1]))], None);
        folder.open().digest()
    };
    let (pixels, encoded) = images(3, 9);
    folder.write("train.parquet", &[("image", hub_struct(&encoded)), ("label", numbers(&[1, 1, 0]))], None);
    let dataset = folder.open();
    assert_ne!(dataset.digest(), before);
    assert_holds(&split(&dataset, SplitName::Train), &pixels, &[1, 1, 0]);
}

#[test]
fn shards_splits_and_other_types_of_columns_are_read() {
    let folder = Folder::new();
    let (mut pixels, encoded) = images(5, 0);
    let (more, more_encoded) = images(4, 100);
    let bytes =
        |encoded: &[Option<Vec<u8>>]| -> ArrayRef { Arc::new(LargeBinaryArray::from_iter(encoded.iter())) };
    let bare = |encoded: &[Option<Vec<u8>>], words: &[&str]| -> Vec<(&str, ArrayRef)> {
        let ids: ArrayRef = Arc::new(Int8Array::from(vec![7; encoded.len()]));
        vec![("id", ids), ("picture", bytes(encoded)), ("class", Arc::new(StringArray::from(words.to_vec())))]
    };
    folder.write(
        "train-00000-of-00002.parquet",
        &bare(&encoded, &["zebra", "ant", "ant", "cow", "ant"]),
        None,
    );
    folder.write("train-00001-of-00002.parquet", &bare(&more_encoded, &["cow", "bee", "ant", "zebra"]), None);
    folder.write("validation/x.parquet", &bare(&encoded[..1], &["dog"]), None);
    let dataset = folder.open();
    let train = split(&dataset, SplitName::Train);
    assert_eq!(train.classes(), ["ant", "bee", "cow", "dog", "zebra"]);
    pixels.extend(more);
    assert_holds(&train, &pixels, &[4, 0, 0, 2, 0, 2, 1, 0, 4]);
    assert_eq!(label_of(&split(&dataset, SplitName::Val), 0), 3);

    std::fs::remove_file(folder.source.path().join("train-00001-of-00002.parquet")).unwrap();
    assert_eq!(
        failure(&folder.open(), SplitName::Train),
        "train-00001-of-00002.parquet: this shard is missing; the dataset has 2"
    );
}

#[test]
fn class_names_are_found_where_the_hub_puts_them() {
    for (hub, expected) in [
        (HUB, ["cat", "dog"]),
        (
            r#"{"dataset_info": {"features": {"label": {"dtype": {"class_label": {"names": {"0": "x", "1": "y"}}}}}}}"#,
            ["x", "y"],
        ),
        (r#"{"info": {"features": {"label": {"feature": {"names": ["u", "v"]}}}}}"#, ["u", "v"]),
        ("not JSON", ["0", "1"]),
        ("{}", ["0", "1"]),
    ] {
        let folder = Folder::new();
        let (_, encoded) = images(2, 0);
        folder.write(
            "pets.parquet",
            &[("img", hub_struct(&encoded)), ("label", numbers(&[1, 0]))],
            Some(hub),
        );
        assert_eq!(split(&folder.open(), SplitName::Train).classes(), expected, "{hub}");
    }
}

#[test]
fn one_bad_image_fails_its_split_alone() {
    let folder = Folder::new();
    let (pixels, encoded) = images(20, 0);
    folder.write("test.parquet", &[("img", hub_struct(&encoded)), ("label", numbers(&[0; 20]))], Some(HUB));
    let mut bad = encoded.clone();
    bad[17] = Some(b"\xff\xd8\xff\xd9".to_vec());
    let columns = |bad: &[Option<Vec<u8>>]| [("img", hub_struct(bad)), ("label", numbers(&[0; 20]))];
    folder.write("train.parquet", &columns(&bad), Some(HUB));
    let dataset = folder.open();
    let message = failure(&dataset, SplitName::Train);
    assert!(message.starts_with("train.parquet, row 17: image does not decode as JPEG: "), "{message}");
    assert_holds(&split(&dataset, SplitName::Test), &pixels, &[0; 20]);

    bad[3] = None;
    folder.fails(
        &columns(&bad),
        Some(HUB),
        "train.parquet, row 3: image is null (the first of 2 bad images among 20)",
    );
    bad[0] = Some(Vec::new());
    folder.fails(
        &columns(&bad),
        Some(HUB),
        "train.parquet, row 0: image begins with nothing; formats that are read are JPEG and PNG (the first of 3 bad images among 20)",
    );
    // A second size is no error; a bad image beside it is.
    let mut other = encoded;
    other[12] = Some(png_of(&noise(0, 8 * 8 * 3), 8));
    other[14] = None;
    folder.fails(&columns(&other), Some(HUB), "train.parquet, row 14: image is null");
}

#[test]
fn images_of_different_sizes_are_kept_as_they_are() {
    let folder = Folder::new();
    let (mut pixels, mut encoded) = images(300, 0);
    for (row, height) in [(150, 9), (151, 1), (299, 20)] {
        pixels[row] = noise(row as u64, height * 7 * 3);
        encoded[row] = Some(png_of(&pixels[row], 7));
    }
    let labels: Vec<i64> = (0..300).map(|row| row % 2).collect();
    folder.write("train.parquet", &[("img", hub_struct(&encoded)), ("label", numbers(&labels))], Some(HUB));
    folder.write(
        "test.parquet",
        &[("img", hub_struct(&encoded[..9])), ("label", numbers(&[0; 9]))],
        Some(HUB),
    );
    for _ in ["packed", "cached"] {
        let dataset = folder.open();
        let train = split(&dataset, SplitName::Train);
        assert_eq!((train.len(), train.shape()), (300, None));
        assert_eq!(train.sizes(), [shape(1, 6), shape(20, 7)]);
        for row in 0..300 {
            assert_eq!(Some(encoded_image(&train, row as u64).0), encoded[row], "row {row}");
            assert_eq!(label_of(&train, row as u64), labels[row]);
            assert_eq!(encoded_image(&train, row as u64).1.rgb_bytes(), pixels[row].len(), "row {row}");
        }
        assert!(train.verify());
        // Those of all pixels, of whatever image.
        let all: Vec<f64> = pixels.concat().chunks(3).map(|pixel| f64::from(pixel[1]) / 255.0).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let std = (all.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / all.len() as f64).sqrt();
        assert!((train.mean()[1] - mean).abs() < 1e-12 && (train.std()[1] - std).abs() < 1e-12);
        // The other split is of one size, and decoded as ever.
        assert_holds(&split(&dataset, SplitName::Test), &pixels[..9], &[0; 9]);
    }
}

#[test]
fn wrong_columns_and_labels_are_named() {
    let folder = Folder::new();
    let (_, encoded) = images(3, 0);
    let image = || hub_struct(&encoded);
    folder.fails(
        &[("label", numbers(&[0, 1, 0]))],
        None,
        "train.parquet: no column of images; its columns are label (Int64)",
    );
    let bytes = || -> ArrayRef { Arc::new(BinaryArray::from_iter(encoded.iter())) };
    folder.fails(
        &[("a", bytes()), ("b", bytes()), ("label", numbers(&[0, 1, 0]))],
        None,
        "train.parquet: several columns could be the column of images: a (Binary), b (Binary); name one \"image\"",
    );
    folder.fails(&[("a", bytes())], None, "train.parquet: no column of labels; its columns are a (Binary)");
    folder.fails(
        &[("a", image()), ("u", numbers(&[0, 1, 0])), ("v", numbers(&[0, 1, 0]))],
        None,
        "train.parquet: several columns could be the column of labels: u (Int64), v (Int64); name one \"label\"",
    );
    for (labels, row, value, allowed) in [
        ([0, -1, 0], 1, "-1", "0..=999999"),
        ([0, 1, 1_000_000], 2, "1000000", "0..=999999"),
        ([0, 1, 2], 2, "2", "0..=1 (2 classes)"),
    ] {
        folder.fails(
            &[("a", image()), ("label", numbers(&labels))],
            Some(HUB),
            &format!("train.parquet, row {row}: label {value} is not allowed; allowed are {allowed}"),
        );
    }
    let with_null: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(1)]));
    folder.fails(
        &[("a", image()), ("label", with_null)],
        None,
        "train.parquet, row 1: label null is not allowed; allowed are integers and words",
    );
    folder.fails(&[("a", image().slice(0, 0)), ("label", numbers(&[]))], None, "train.parquet: no rows");
}

#[test]
fn a_truncated_file_fails_its_split_at_any_length() {
    let folder = Folder::new();
    let (_, encoded) = images(2, 0);
    folder.write("test.parquet", &[("img", hub_struct(&encoded)), ("label", numbers(&[0, 1]))], Some(HUB));
    let bytes = std::fs::read(folder.source.path().join("test.parquet")).unwrap();
    let train = folder.source.path().join("train.parquet");
    for length in (0..bytes.len()).step_by(11) {
        std::fs::write(&train, &bytes[..length]).unwrap();
        let dataset = folder.open();
        let message = failure(&dataset, SplitName::Train);
        assert!(message.starts_with("train.parquet: not a readable Parquet file: "), "{message}");
        split(&dataset, SplitName::Test);
    }
    // Damage anywhere gives a split or an error, never a panic.
    for place in (0..bytes.len()).step_by(17) {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x55;
        std::fs::write(&train, &bytes).unwrap();
        let _ = folder.open();
    }
}

#[test]
fn several_at_once_do_no_harm() {
    let folder = Folder::new();
    let (pixels, encoded) = images(300, 0);
    let labels = vec![0; 300];
    folder.write("train.parquet", &[("img", hub_struct(&encoded)), ("label", numbers(&labels))], Some(HUB));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_holds(&split(&folder.open(), SplitName::Train), &pixels, &labels));
        }
    });
    // One folder, with one file in it: no temporary file is left.
    let imported = folder.cache.path().read_dir().unwrap().next().unwrap().unwrap();
    assert_eq!(imported.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_page_that_inflates_to_more_than_it_says_is_refused() {
    let folder = Folder::new();
    let file = folder.source.path().join("train.parquet");
    let image = |bytes: usize| hub_struct(&[Some(vec![0; bytes])]);
    let columns = [("image", image(40_000_000)), ("label", numbers(&[0]))];
    write(&file, &columns, None, Compression::GZIP(Default::default()));
    let opened = SerializedFileReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let column = opened.metadata().row_group(0).column(0);
    let place = column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize;
    let mut bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() < 100_000, "40 MB in {} bytes", bytes.len());
    // Its type, then the bytes that it inflates to, as a number of seven bits to a byte.
    let length = &mut bytes[place + 3..place + 7];
    assert!(length[2] >= 0x80 && length[3] < 0x80, "{length:?}");
    length.copy_from_slice(&[0x80, 0x80, 0x80, 0x01]);
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(
        failure(&folder.open(), SplitName::Train),
        "train.parquet: not a readable Parquet file: page 0 of a column: it inflates to more than the 1048576 \
         bytes that it says"
    );
}
