//! Parquet in the layout of the Hugging Face hub: one column of encoded images, one of labels.
//!
//! The image column is a struct with a binary field `bytes`, or plain binary; the label column
//! holds integers or words. Class names come from the `huggingface` metadata when it is there.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, StructArray};
use arrow_schema::{DataType, Field};
use pba_types::SplitName;
use serde_json::Value;

use crate::cache::Key;
use crate::error::DatasetError;
use crate::formats::files::{self, Files, label, list, split_of};
use crate::formats::format::{Format, Found, SingleFile, Source};
use crate::packed::spec::{CLASSES_MAX, PackSpec, allowed_labels};
use crate::packed::target::{Cell, Stop, Target};

pub(crate) const FORMAT: Format = Format {
    name: "parquet",
    looked_for: "Parquet files (train*.parquet, val*.parquet, test*.parquet; \
        also in data/, train/, val/, test/; or a single .parquet file)",
    file: Some(SingleFile {
        magic: b"PAR1",
        extension: "parquet",
        open: |path| found(path, Files::from([(files::split_of_one(path), vec![path.to_owned()])])),
    }),
    find: |root| Ok(Some(find(root)?).filter(|files| !files.is_empty()).map(|files| found(root, files))),
};

/// Rows read at a time: encoded images of some megabytes each still fit in memory.
const READ_ROWS: usize = 128;
/// Rows of labels read at a time.
const LABEL_ROWS: usize = 8192;
/// Names that decide between several columns that could hold the images.
const IMAGE_NAMES: [&str; 2] = ["image", "img"];
/// The same for labels.
const LABEL_NAMES: [&str; 7] = ["label", "labels", "fine_label", "class", "class_label", "target", "y"];

struct ParquetFiles {
    root: PathBuf,
    files: Files,
    /// Filled when something is packed, as the classes of a split depend on the others.
    scans: OnceCell<BTreeMap<SplitName, Result<Scan, DatasetError>>>,
}

fn found(root: &Path, files: Files) -> Found {
    Found::Source(Box::new(ParquetFiles { root: root.to_owned(), files, scans: OnceCell::new() }))
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet") && path.is_file()
}

/// The Parquet files of each split; none when there are none.
fn find(root: &Path) -> Result<Files, DatasetError> {
    let mut files = Files::new();
    let mut nameless = Vec::new();
    let (listing, data) = (list(root)?, list(&root.join("data"))?);
    for entry in listing.iter().chain(&data) {
        match split_of(entry) {
            Some(split) if is_parquet(entry) => files.entry(split).or_default().push(entry.clone()),
            Some(split) if entry.is_dir() => {
                let inner = list(entry)?.into_iter().filter(|file| is_parquet(file));
                inner.for_each(|file| files.entry(split).or_default().push(file));
            }
            None if is_parquet(entry) => nameless.push(entry.clone()),
            _ => {}
        }
    }
    if files.is_empty() && nameless.len() == 1 {
        files.insert(SplitName::Train, nameless);
    } else if files.is_empty() && !nameless.is_empty() {
        let names: Vec<String> = nameless.iter().take(5).map(|file| label(root, file)).collect();
        let looked_for = format!(
            "Parquet files named by split (train*.parquet, val*.parquet, test*.parquet), as there are several; found {}",
            names.join(", ")
        );
        return Err(DatasetError::NothingReadable { path: root.to_owned(), looked_for });
    }
    Ok(files)
}

impl Source for ParquetFiles {
    fn splits(&self) -> BTreeMap<SplitName, PathBuf> {
        files::first(&self.files)
    }

    fn key(&self) -> Result<Key, DatasetError> {
        Key::of_files(&self.root, self.files.values().flatten())
    }

    fn spec(&self, split: SplitName) -> Result<PackSpec, DatasetError> {
        let scan = self.scan(split)?;
        let title = self.root.file_name().unwrap_or_default().to_string_lossy();
        let (classes, rows) = (scan.classes.clone(), scan.labels.len() as u64);
        Ok(PackSpec { classes, rows, source: format!("Parquet {title}, {split}") })
    }

    fn rows(&self, split: SplitName, target: &mut Target<'_>) -> Result<(), Stop> {
        let scan = self.scan(split)?;
        guarded(&self.root, &self.files[&split], || {
            let mut labels = &scan.labels[..];
            for file in &scan.files {
                let (now, rest) = labels.split_at(file.rows as usize);
                file.give(now, target)?;
                labels = rest;
            }
            Ok(())
        })
    }
}

impl ParquetFiles {
    fn scan(&self, split: SplitName) -> Result<&Scan, DatasetError> {
        let scans = self.scans.get_or_init(|| {
            let read = |files: &Vec<PathBuf>| guarded(&self.root, files, || RawScan::read(&self.root, files));
            let scans: BTreeMap<_, _> = self.files.iter().map(|(&name, files)| (name, read(files))).collect();
            // Without names in the metadata, the classes are those that any split mentions.
            let classes = Classes::of(scans.values().flatten());
            scans.into_iter().map(|(name, scan)| (name, scan.and_then(|s| s.resolve(&classes)))).collect()
        });
        scans[&split].as_ref().map_err(Clone::clone)
    }
}

/// Should the Parquet reader panic on a damaged file, the server must live.
fn guarded<T, E: From<DatasetError>>(
    root: &Path,
    files: &[PathBuf],
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(&label(root, &files[0]), "it makes the Parquet reader panic").into()))
}

/// One file, opened, its columns found.
struct ParquetFile {
    path: PathBuf,
    /// As messages name it.
    name: String,
    /// Leaf of the Parquet schema that holds the images.
    image: usize,
    /// Leaf that holds the labels.
    label: usize,
    /// Names of the classes, if the file says.
    classes: Option<Vec<String>>,
    /// Known once the labels have been read.
    rows: u64,
}

impl ParquetFile {
    fn open(root: &Path, path: &Path) -> Result<ParquetFile, DatasetError> {
        let name = label(root, path);
        let builder = builder(path, &name)?;
        let schema = builder.schema().clone();
        let fields: Vec<&Field> = schema.fields().iter().map(AsRef::as_ref).collect();
        let features = features(&builder);
        let (image, path_in_image) = {
            let field = choose(&name, &fields, is_image, "column of images", &IMAGE_NAMES, |_| false)?;
            let nested: &[&str] =
                if matches!(field.data_type(), DataType::Struct(_)) { &["bytes"] } else { &[] };
            (field, nested)
        };
        let class_names = |field: &Field| names(features.as_ref()?.get(field.name())?);
        let is_label = |field: &Field| field.name() != image.name() && (is_integer(field) || is_text(field));
        let label = choose(&name, &fields, is_label, "column of labels", &LABEL_NAMES, |field| {
            class_names(field).is_some()
        })?;
        let leaf = |field: &Field, nested: &[&str]| {
            let parts: Vec<&str> =
                std::iter::once(field.name().as_str()).chain(nested.iter().copied()).collect();
            let columns = builder.parquet_schema().columns();
            let leaf = columns.iter().position(|column| column.path().parts().iter().eq(&parts));
            leaf.ok_or_else(|| damaged(&name, format!("column {:?} has no data", parts.join("."))))
        };
        let (image, classes) =
            (leaf(image, path_in_image)?, class_names(label).filter(|_| is_integer(label)));
        let label = leaf(label, &[])?;
        Ok(ParquetFile { path: path.to_owned(), image, label, classes, rows: 0, name })
    }

    fn read(&self, leaf: usize, rows: usize) -> Result<ParquetRecordBatchReader, DatasetError> {
        let builder = builder(&self.path, &self.name)?;
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [leaf]);
        builder.with_projection(mask).with_batch_size(rows).build().map_err(self.damaged())
    }

    fn damaged<E: std::fmt::Display>(&self) -> impl Fn(E) -> DatasetError + '_ {
        move |error| damaged(&self.name, error)
    }

    /// Gives the images, whose labels are known, to `target`.
    fn give(&self, labels: &[i64], target: &mut Target<'_>) -> Result<(), Stop> {
        let mut row = 0;
        for batch in self.read(self.image, READ_ROWS)? {
            let batch = batch.map_err(self.damaged())?;
            let cells = cells(batch.column(0))
                .ok_or_else(|| damaged(&self.name, "its image column changed its type"))?;
            let labels = labels[row..]
                .get(..cells.len())
                .ok_or_else(|| damaged(&self.name, "it has more images than labels"))?;
            target.add(&cells, labels, |i| (self.name.clone(), Some((row + i) as u64)))?;
            row += cells.len();
        }
        if row != labels.len() {
            let reason = format!("it has {row} images and {} labels", labels.len());
            return Err(damaged(&self.name, reason).into());
        }
        Ok(())
    }
}

fn damaged(file: &str, error: impl std::fmt::Display) -> DatasetError {
    DatasetError::Parquet { file: file.to_owned(), reason: error.to_string() }
}

fn builder(path: &Path, file: &str) -> Result<ParquetRecordBatchReaderBuilder<File>, DatasetError> {
    let opened = File::open(path).map_err(DatasetError::io(path, "open it"))?;
    // Without the writer's Arrow types, there are fewer types to know: what the columns hold.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
        .map_err(|error| damaged(file, error))
}

fn is_image(field: &Field) -> bool {
    match field.data_type() {
        DataType::Binary => true,
        DataType::Struct(fields) => {
            fields.iter().any(|field| field.name() == "bytes" && *field.data_type() == DataType::Binary)
        }
        _ => false,
    }
}

fn is_integer(field: &Field) -> bool {
    field.data_type().is_integer()
}

fn is_text(field: &Field) -> bool {
    *field.data_type() == DataType::Utf8
}

/// The only suitable column; of several, the one with a preferred name, or the one that the metadata
/// declares, or else the only one that is not text.
fn choose<'a>(
    file: &str,
    fields: &[&'a Field],
    will_do: impl Fn(&Field) -> bool,
    wanted: &'static str,
    preferred: &[&'static str],
    is_declared: impl Fn(&Field) -> bool,
) -> Result<&'a Field, DatasetError> {
    let candidates: Vec<&Field> = fields.iter().copied().filter(|field| will_do(field)).collect();
    let only = |filter: &dyn Fn(&Field) -> bool| {
        let mut found = candidates.iter().copied().filter(|field| filter(field));
        found.next().filter(|_| found.next().is_none())
    };
    let named = || {
        let by_name = |name| candidates.iter().copied().find(|field| field.name() == name);
        preferred.iter().find_map(by_name)
    };
    let chosen =
        only(&|_| true).or_else(named).or_else(|| only(&is_declared)).or_else(|| only(&|f| !is_text(f)));
    chosen.ok_or_else(|| {
        let describe = |fields: &[&Field]| {
            let texts: Vec<String> =
                fields.iter().map(|f| format!("{} ({})", f.name(), f.data_type())).collect();
            texts.join(", ")
        };
        if candidates.is_empty() {
            DatasetError::NoColumn { file: file.to_owned(), wanted, columns: describe(fields) }
        } else {
            let candidates = describe(&candidates);
            DatasetError::AmbiguousColumn { file: file.to_owned(), wanted, candidates, prefer: preferred[0] }
        }
    })
}

/// `info.features` of the `huggingface` metadata, wherever it is nested.
fn features(builder: &ParquetRecordBatchReaderBuilder<File>) -> Option<Value> {
    let metadata = builder.metadata().file_metadata().key_value_metadata()?;
    let text = metadata.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    fn find(value: &Value) -> Option<&Value> {
        let object = value.as_object()?;
        object
            .get("features")
            .filter(|features| features.is_object())
            .or_else(|| object.values().find_map(find))
    }
    find(&serde_json::from_str(text).ok()?).cloned()
}

/// The list under the first key `names`, or the values of an object under it, in numeric order.
fn names(feature: &Value) -> Option<Vec<String>> {
    let object = feature.as_object()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found = match object.get("names") {
        Some(Value::Array(names)) => names.iter().map(text).collect(),
        Some(Value::Object(names)) => {
            (0..names.len()).map(|i| names.get(&i.to_string()).and_then(text)).collect()
        }
        _ => object.values().find_map(names),
    };
    found.filter(|names: &Vec<String>| (1..=CLASSES_MAX).contains(&names.len()))
}

/// One split: its files, the names of its classes, and the class of every row.
struct Scan {
    files: Vec<ParquetFile>,
    classes: Vec<String>,
    labels: Vec<i64>,
}

/// One split whose classes are not known yet.
struct RawScan {
    files: Vec<ParquetFile>,
    labels: Labels,
}

enum Labels {
    Numbers(Vec<i64>),
    /// Positions in a list of words, in order of appearance.
    Words(Vec<u32>, Vec<String>),
}

impl Labels {
    fn len(&self) -> usize {
        match self {
            Labels::Numbers(labels) => labels.len(),
            Labels::Words(labels, _) => labels.len(),
        }
    }
}

impl RawScan {
    fn read(root: &Path, files: &[PathBuf]) -> Result<RawScan, DatasetError> {
        check_shards(root, files)?;
        let files = files.iter().map(|file| ParquetFile::open(root, file));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        let (mut labels, mut words) = (None, HashMap::new());
        for file in &mut files {
            for batch in file.read(file.label, LABEL_ROWS)? {
                let batch = batch.map_err(file.damaged())?;
                add_labels(file, batch.column(0), &mut labels, &mut words)?;
                file.rows += batch.num_rows() as u64;
            }
        }
        let labels = labels.filter(|labels| labels.len() > 0);
        let labels = labels.ok_or_else(|| DatasetError::Empty { file: files[0].name.clone() })?;
        Ok(RawScan { files, labels })
    }

    /// The file and the row within it that row `index` of the split is.
    fn place(&self, index: u64) -> (&ParquetFile, u64) {
        let mut row = index;
        for file in &self.files {
            if row < file.rows {
                return (file, row);
            }
            row -= file.rows;
        }
        unreachable!("the index is below the number of rows")
    }

    /// Finds the class of every row.
    fn resolve(self, classes: &Classes) -> Result<Scan, DatasetError> {
        let (classes, labels) = match &self.labels {
            Labels::Words(labels, list) => {
                let position = |word| classes.words.binary_search(word).map_or(-1, |place| place as i64);
                let ids: Vec<i64> = list.iter().map(position).collect();
                (classes.words.clone(), labels.iter().map(|&id| ids[id as usize]).collect())
            }
            Labels::Numbers(labels) => {
                let names = self.files[0].classes.clone();
                let names = names.unwrap_or_else(|| (0..classes.numbers).map(|n| n.to_string()).collect());
                if let Some(index) = labels.iter().position(|&label| label as usize >= names.len()) {
                    let (file, row) = self.place(index as u64);
                    let (value, allowed) = (labels[index].to_string(), allowed_labels(names.len()));
                    return Err(DatasetError::Label { file: file.name.clone(), row, value, allowed });
                }
                (names, labels.clone())
            }
        };
        Ok(Scan { files: self.files, classes, labels })
    }
}

/// `train-00000-of-00002.parquet` promises `train-00001-of-00002.parquet`.
fn check_shards(root: &Path, files: &[PathBuf]) -> Result<(), DatasetError> {
    fn parts(stem: &str) -> Option<(&str, &str, u64)> {
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        number.parse::<u64>().ok()?;
        Some((prefix, number, of.parse().ok()?))
    }
    let there: BTreeSet<&PathBuf> = files.iter().collect();
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let Some((prefix, number, shards)) = parts(&stem) else { continue };
        // The first gap is found within as many names as there are files.
        for shard in 0..shards.min(files.len() as u64 + 1) {
            let width = number.len();
            let of = &stem[stem.len() - width.min(stem.len())..];
            let of = if of.parse() == Ok(shards) { of.to_owned() } else { shards.to_string() };
            let expected = file.with_file_name(format!("{prefix}-{shard:0width$}-of-{of}.parquet"));
            if !there.contains(&expected) {
                return Err(DatasetError::MissingShard { file: label(root, &expected), shards });
            }
        }
        // One look per set of shards would do; the first file's is enough for the usual one.
        break;
    }
    Ok(())
}

/// Adds the labels of the next rows of a file.
fn add_labels(
    file: &ParquetFile,
    column: &ArrayRef,
    labels: &mut Option<Labels>,
    words: &mut HashMap<String, u32>,
) -> Result<(), DatasetError> {
    let refuse = |row: usize, value: String, allowed: String| DatasetError::Label {
        file: file.name.clone(),
        row: file.rows + row as u64,
        value,
        allowed,
    };
    if let Some(row) = (0..column.len()).find(|&row| column.is_null(row)) {
        return Err(refuse(row, "null".into(), "integers and words".into()));
    }
    if *column.data_type() == DataType::Utf8 {
        let empty = || Labels::Words(Vec::new(), Vec::new());
        let Labels::Words(labels, list) = labels.get_or_insert_with(empty) else {
            return Err(refuse(0, "of text".into(), "integers, as in the first file".into()));
        };
        for (row, word) in column.as_string::<i32>().iter().flatten().enumerate() {
            let id = match words.get(word) {
                Some(&id) => id,
                None if list.len() == CLASSES_MAX => {
                    return Err(refuse(row, format!("{word:?}"), format!("{CLASSES_MAX} different ones")));
                }
                None => {
                    let id = list.len() as u32;
                    words.insert(word.to_owned(), id);
                    list.push(word.to_owned());
                    id
                }
            };
            labels.push(id);
        }
        return Ok(());
    }
    let Labels::Numbers(labels) = labels.get_or_insert_with(|| Labels::Numbers(Vec::new())) else {
        return Err(refuse(0, "of integers".into(), "text, as in the first file".into()));
    };
    let values =
        integers(column).ok_or_else(|| damaged(&file.name, "labels of another type than in its schema"))?;
    for (row, value) in values.into_iter().enumerate() {
        match i64::try_from(value) {
            Ok(label) if (0..CLASSES_MAX as i64).contains(&label) => labels.push(label),
            _ => return Err(refuse(row, value.to_string(), format!("0..={}", CLASSES_MAX - 1))),
        }
    }
    Ok(())
}

fn integers(column: &ArrayRef) -> Option<Vec<i128>> {
    fn of<T: ArrowPrimitiveType>(column: &ArrayRef) -> Vec<i128>
    where
        T::Native: Into<i128>,
    {
        column.as_primitive::<T>().values().iter().map(|&value| value.into()).collect()
    }
    Some(match column.data_type() {
        DataType::Int8 => of::<Int8Type>(column),
        DataType::Int16 => of::<Int16Type>(column),
        DataType::Int32 => of::<Int32Type>(column),
        DataType::Int64 => of::<Int64Type>(column),
        DataType::UInt8 => of::<UInt8Type>(column),
        DataType::UInt16 => of::<UInt16Type>(column),
        DataType::UInt32 => of::<UInt32Type>(column),
        DataType::UInt64 => of::<UInt64Type>(column),
        _ => return None,
    })
}

/// Classes for splits that do not name their own.
struct Classes {
    /// One more than the largest label.
    numbers: usize,
    /// Every word, sorted.
    words: Vec<String>,
}

impl Classes {
    fn of<'a>(scans: impl Iterator<Item = &'a RawScan>) -> Classes {
        let (mut numbers, mut words) = (0, BTreeSet::new());
        for scan in scans {
            match &scan.labels {
                Labels::Numbers(labels) => {
                    numbers = labels.iter().fold(numbers, |most, &label| most.max(label as usize + 1));
                }
                Labels::Words(_, list) => words.extend(list.iter().cloned()),
            }
        }
        Classes { numbers, words: words.into_iter().collect() }
    }
}

/// Encoded images of a batch.
fn cells(column: &ArrayRef) -> Option<Vec<Cell<'_>>> {
    let (outer, bytes): (Option<&StructArray>, &BinaryArray) = match column.data_type() {
        DataType::Struct(_) => {
            let outer = column.as_struct_opt()?;
            (Some(outer), outer.column_by_name("bytes")?.as_binary_opt()?)
        }
        _ => (None, column.as_binary_opt()?),
    };
    let is_null = |row| bytes.is_null(row) || outer.is_some_and(|outer| outer.is_null(row));
    let cell = |row| if is_null(row) { Err("image is null".to_owned()) } else { Ok(bytes.value(row)) };
    Some((0..bytes.len()).map(cell).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: &[(SplitName, &[&str])]) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let files = find(folder.path()).unwrap();
        let found: Vec<(SplitName, Vec<String>)> = files
            .iter()
            .map(|(split, files)| (*split, files.iter().map(|file| label(folder.path(), file)).collect()))
            .collect();
        let expected: Vec<(SplitName, Vec<String>)> = expected
            .iter()
            .map(|(split, files)| (*split, files.iter().map(|f| (*f).to_owned()).collect()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn parquet_files_are_found_by_their_names() {
        use SplitName::{Test, Train, Val};
        check(
            &["train.parquet", "test.parquet", "validation.parquet", "README.md", ".train.parquet"],
            &[(Train, &["train.parquet"]), (Val, &["validation.parquet"]), (Test, &["test.parquet"])],
        );
        check(
            &["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"],
            &[(Train, &["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"])],
        );
        check(
            &["train/0001.parquet", "train/0000.parquet", "test/0000.parquet", "valid/a.parquet"],
            &[
                (Train, &["train/0000.parquet", "train/0001.parquet"]),
                (Val, &["valid/a.parquet"]),
                (Test, &["test/0000.parquet"]),
            ],
        );
        check(&["cifar.parquet"], &[(Train, &["cifar.parquet"])]);
        check(&["notes.txt"], &[]);
    }
}
