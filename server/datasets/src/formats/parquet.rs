//! Parquet in the layout of the Hugging Face hub: one column of encoded images, one of labels.
//!
//! The image column is a struct with a binary field `bytes`, or plain binary; the label column
//! holds integers or words. Class names come from the `huggingface` metadata when it is there.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, downcast_integer_array};
use arrow_schema::{DataType, Field};
use pba_types::SplitName;
use serde_json::Value;

use crate::cache::Key;
use crate::error::{DatasetError, Fault};
use crate::formats::files::{self, Files, label, list, split_of};
use crate::formats::format::{Format, Found, SingleFile, Source};
use crate::formats::parquet_pages;
use crate::packed::spec::{CLASSES_MAX, PackSpec, allowed_labels, columns};
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
    // What is neither is refused when it is opened, and not passed over.
    path.extension().is_some_and(|extension| extension == "parquet") && !path.is_dir()
}

/// The Parquet files of each split; none when there are none.
fn find(root: &Path) -> Result<Files, DatasetError> {
    let (mut files, mut nameless) = (Files::new(), Vec::new());
    for entry in list(root)?.into_iter().chain(list(&root.join("data"))?) {
        match split_of(&entry) {
            Some(split) if is_parquet(&entry) => files.entry(split).or_default().push(entry),
            Some(split) if entry.is_dir() => {
                let (folders, inner): (Vec<_>, Vec<_>) =
                    list(&entry)?.into_iter().partition(|inner| inner.is_dir());
                let nested = folders.iter().map(|folder| list(folder)).collect::<Result<Vec<_>, _>>()?;
                let inner = inner.into_iter().chain(nested.into_iter().flatten());
                inner
                    .filter(|file| is_parquet(file))
                    .for_each(|file| files.entry(split).or_default().push(file));
            }
            None if is_parquet(&entry) => nameless.push(entry),
            _ => {}
        }
    }
    if files.is_empty() && nameless.len() > 1 {
        let names: Vec<String> = nameless.iter().take(5).map(|file| label(root, file)).collect();
        let reason = format!(
            "no dataset found; looked for Parquet files named by split (train*.parquet, val*.parquet, \
             test*.parquet), as there are several; found {}",
            names.join(", ")
        );
        return Err(DatasetError::unreadable(root.display(), reason));
    }
    if files.is_empty() && !nameless.is_empty() {
        files.insert(SplitName::Train, nameless);
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
        let is_damage = |stop: &Stop| matches!(stop, Stop::Failed(DatasetError::Unreadable { .. }));
        guarded(&self.root, &self.files[&split], is_damage, || {
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
            let is_damage = |error: &DatasetError| matches!(error, DatasetError::Unreadable { .. });
            let read = |files: &Vec<PathBuf>| {
                guarded(&self.root, files, is_damage, || Scan::read(&self.root, files))
            };
            let mut scans = self.files.iter().map(|(&name, files)| (name, read(files))).collect();
            agree(&mut scans);
            scans
        });
        scans[&split].as_ref().map_err(Clone::clone)
    }
}

/// Should the Parquet reader panic on a damaged file, the server must live. Should it fail because the machine
/// does, that is the error: the reader does not tell.
fn guarded<T, E: From<DatasetError>>(
    root: &Path,
    files: &[PathBuf],
    is_damage: fn(&E) -> bool,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let worked = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(damaged(&label(root, &files[0]), "it makes the Parquet reader panic").into())
    });
    worked.map_err(|error: E| {
        let read = |path: &PathBuf| -> Option<DatasetError> {
            let read =
                pba_files::open(path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
            let error = DatasetError::io(path, "read it")(read.err()?);
            (error.fault() == Some(Fault::Machine)).then_some(error)
        };
        // Every file is read again for that, but only after a failure, and of what is damaged hardly any is long.
        match is_damage(&error) {
            true => files.iter().find_map(read).map_or(error, E::from),
            false => error,
        }
    })
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
        let fields: Vec<&Field> = builder.schema().fields().iter().map(AsRef::as_ref).collect();
        let features = features(&builder);
        let image = choose(&name, &fields, is_image, "column of images", &IMAGE_NAMES, |_| false)?;
        let class_names = |field: &Field| names(features.as_ref()?.get(field.name())?);
        let is_label = |field: &Field| field.name() != image.name() && (is_integer(field) || is_text(field));
        let label = choose(&name, &fields, is_label, "column of labels", &LABEL_NAMES, |field| {
            class_names(field).is_some()
        })?;
        let leaf = |parts: &[&str]| {
            let mut leaves = builder.parquet_schema().columns().iter();
            let leaf = leaves.position(|column| column.path().parts() == parts);
            leaf.ok_or_else(|| damaged(&name, format_args!("column {:?} has no data", parts.join("."))))
        };
        Ok(ParquetFile {
            path: path.to_owned(),
            image: match image.data_type() {
                DataType::Struct(_) => leaf(&[image.name(), "bytes"])?,
                _ => leaf(&[image.name()])?,
            },
            label: leaf(&[label.name()])?,
            classes: class_names(label).filter(|_| is_integer(label)),
            rows: 0,
            name,
        })
    }

    fn read(&self, leaf: usize, rows: usize) -> Result<ParquetRecordBatchReader, DatasetError> {
        let builder = builder(&self.path, &self.name)?;
        let file = pba_files::open(&self.path).map_err(DatasetError::io(&self.path, "open it"))?;
        for group in builder.metadata().row_groups() {
            parquet_pages::check(&file, group.column(leaf)).map_err(|reason| self.damaged(reason))?;
        }
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [leaf]);
        let reader = builder.with_projection(mask).with_batch_size(rows).build();
        reader.map_err(|error| self.damaged(error))
    }

    fn damaged(&self, error: impl Display) -> DatasetError {
        damaged(&self.name, error)
    }

    /// Gives the images, whose labels are known, to `target`.
    fn give(&self, labels: &[i64], target: &mut Target<'_>) -> Result<(), Stop> {
        let mut row = 0;
        for batch in self.read(self.image, READ_ROWS)? {
            let batch = batch.map_err(|error| self.damaged(error))?;
            let cells = cells(batch.column(0));
            let cells = cells.ok_or_else(|| self.damaged("its image column changed its type"))?;
            let labels = labels[row..].get(..cells.len());
            let labels = labels.ok_or_else(|| self.damaged("it has more images than labels"))?;
            target.add(&cells, labels, |i| format!("{}, row {}", self.name, row + i))?;
            row += cells.len();
        }
        if row != labels.len() {
            let reason = format!("it has {row} images and {} labels", labels.len());
            return Err(self.damaged(reason).into());
        }
        Ok(())
    }
}

fn damaged(file: &str, error: impl Display) -> DatasetError {
    DatasetError::unreadable(file, format_args!("not a readable Parquet file: {error}"))
}

fn builder(path: &Path, file: &str) -> Result<ParquetRecordBatchReaderBuilder<File>, DatasetError> {
    let opened = pba_files::open(path).map_err(DatasetError::io(path, "open it"))?;
    parquet_pages::check_footer(&opened).map_err(|error| damaged(file, error))?;
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
    let named = |name: &&str| candidates.iter().copied().find(|field| field.name() == name);
    let chosen = only(&|_| true)
        .or_else(|| preferred.iter().find_map(named))
        .or_else(|| only(&is_declared))
        .or_else(|| only(&|field| !is_text(field)));
    chosen.ok_or_else(|| {
        let reason = if candidates.is_empty() {
            format!("no {wanted}; its columns are {}", columns(fields))
        } else {
            let (candidates, name) = (columns(&candidates), preferred[0]);
            format!("several columns could be the {wanted}: {candidates}; name one {name:?}")
        };
        DatasetError::unreadable(file, reason)
    })
}

/// `info.features` of the `huggingface` metadata, wherever it is nested.
fn features(builder: &ParquetRecordBatchReaderBuilder<File>) -> Option<Value> {
    fn find(value: &Value) -> Option<&Value> {
        let object = value.as_object()?;
        let features = object.get("features").filter(|features| features.is_object());
        features.or_else(|| object.values().find_map(find))
    }
    let metadata = builder.metadata().file_metadata().key_value_metadata()?;
    let text = metadata.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
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
#[derive(Default)]
struct Scan {
    files: Vec<ParquetFile>,
    /// None before [`agree`], unless the first file names them.
    classes: Vec<String>,
    labels: Vec<i64>,
    /// Whether the labels are words; unknown before the first.
    is_text: Option<bool>,
    /// The label of each word before [`agree`], in order of appearance.
    words: HashMap<String, i64>,
}

impl Scan {
    fn read(root: &Path, files: &[PathBuf]) -> Result<Scan, DatasetError> {
        check_files(root, files)?;
        let files = files.iter().map(|file| ParquetFile::open(root, file));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        let mut scan = Scan { classes: files[0].classes.take().unwrap_or_default(), ..Scan::default() };
        for file in &mut files {
            for batch in file.read(file.label, LABEL_ROWS)? {
                let batch = batch.map_err(|error| file.damaged(error))?;
                scan.add(file, batch.column(0))?;
                file.rows += batch.num_rows() as u64;
            }
        }
        match scan.labels.is_empty() {
            true => Err(DatasetError::unreadable(&files[0].name, "no rows")),
            false => Ok(Scan { files, ..scan }),
        }
    }

    /// Adds the labels of the next rows of a file.
    fn add(&mut self, file: &ParquetFile, column: &ArrayRef) -> Result<(), DatasetError> {
        let refuse = |row: usize, value: &dyn Display, allowed: &dyn Display| {
            Err(DatasetError::label(&file.name, file.rows + row as u64, value, allowed))
        };
        if let Some(row) = (0..column.len()).find(|&row| column.is_null(row)) {
            return refuse(row, &"null", &"integers and words");
        }
        let is_text = *column.data_type() == DataType::Utf8;
        match (*self.is_text.get_or_insert(is_text), is_text) {
            (false, true) => return refuse(0, &"of text", &"integers, as in the first file"),
            (true, false) => return refuse(0, &"of integers", &"text, as in the first file"),
            _ => {}
        }
        if is_text {
            for (row, word) in column.as_string::<i32>().iter().flatten().enumerate() {
                let count = self.words.len();
                let label = match self.words.get(word) {
                    Some(&label) => label,
                    None if count == CLASSES_MAX => {
                        return refuse(row, &format!("{word:?}"), &format!("{CLASSES_MAX} different ones"));
                    }
                    None => *self.words.entry(word.to_owned()).or_insert(count as i64),
                };
                self.labels.push(label);
            }
            return Ok(());
        }
        let values: Vec<i128> = downcast_integer_array!(
            column => column.values().iter().map(|&value| value.into()).collect(),
            _ => return Err(file.damaged("labels of another type than in its schema"))
        );
        let classes = self.classes.len();
        for (row, value) in values.into_iter().enumerate() {
            if !(0..CLASSES_MAX as i128).contains(&value) {
                return refuse(row, &value, &format!("0..={}", CLASSES_MAX - 1));
            }
            if classes > 0 && value >= classes as i128 {
                return refuse(row, &value, &allowed_labels(classes));
            }
            self.labels.push(value as i64);
        }
        Ok(())
    }
}

/// Names the classes of splits that do not name their own: all words in order, or all numbers up to the
/// greatest, of any split.
fn agree(scans: &mut BTreeMap<SplitName, Result<Scan, DatasetError>>) {
    let scans: Vec<&mut Scan> = scans.values_mut().flatten().collect();
    let words: BTreeSet<&String> = scans.iter().flat_map(|scan| scan.words.keys()).collect();
    let words: Vec<String> = words.into_iter().cloned().collect();
    let numbers = scans.iter().filter(|scan| scan.is_text == Some(false)).flat_map(|scan| &scan.labels);
    let numbers = 0..=numbers.copied().max().unwrap_or_default();
    for scan in scans {
        if scan.is_text == Some(true) {
            let mut labels = vec![0; scan.words.len()];
            for (word, &label) in &scan.words {
                let place = words.binary_search(word).expect("the words are those of all splits");
                labels[label as usize] = place as i64;
            }
            scan.labels.iter_mut().for_each(|label| *label = labels[*label as usize]);
            scan.classes.clone_from(&words);
        } else if scan.classes.is_empty() {
            scan.classes = numbers.clone().map(|number| number.to_string()).collect();
        }
    }
}

/// A file's place in a set, as of `train-00000-of-00002.parquet`; exports add a hash to it.
struct Numbered<'a> {
    prefix: &'a str,
    number: u64,
    /// As it is written.
    of: &'a str,
    digits: usize,
}

impl Numbered<'_> {
    fn of(file: &Path) -> Option<Numbered<'_>> {
        let (rest, of) = file.file_stem()?.to_str()?.rsplit_once("-of-")?;
        let of = of.split_once('-').map_or(of, |(of, _hash)| of);
        let (prefix, number) = rest.rsplit_once('-')?;
        of.parse::<u64>().ok()?;
        Some(Numbered { prefix, number: number.parse().ok()?, of, digits: number.len() })
    }
}

/// Checks that the files of a split are one whole set, and no copy of it: `train-00000-of-00002.parquet` promises
/// `train-00001-of-00002.parquet`, and `train.parquet` beside them would give each sample twice.
fn check_files(root: &Path, files: &[PathBuf]) -> Result<(), DatasetError> {
    let refuse = |one: &Path, other: &Path| {
        let (one, other) = (label(root, one), label(root, other));
        let reason = format!("{other} is there, too, which may be the same samples again; leave one of them");
        Err(DatasetError::unreadable(one, reason))
    };
    let parent = |file: &PathBuf| file.parent().map(Path::to_owned);
    let Some(first) = files.first() else { return Ok(()) };
    if let Some(other) = files.iter().find(|file| parent(file) != parent(first)) {
        return refuse(first, other);
    }
    let mut sets: BTreeMap<&str, BTreeMap<u64, (&PathBuf, Numbered<'_>)>> = BTreeMap::new();
    for file in files {
        let Some(numbered) = Numbered::of(file) else { continue };
        let set = sets.entry(numbered.prefix).or_default();
        if let Some((other, _)) = set.values().find(|(_, other)| other.of != numbered.of) {
            return refuse(other, file);
        }
        if let Some((other, _)) = set.insert(numbered.number, (file, numbered)) {
            return refuse(other, file);
        }
    }
    for file in files.iter().filter(|file| Numbered::of(file).is_none()) {
        let set = file.file_stem().and_then(|stem| sets.get(stem.to_str()?));
        if let Some((other, _)) = set.and_then(|set| set.values().next()) {
            return refuse(file, other);
        }
    }
    for (prefix, set) in &sets {
        let (file, Numbered { of, digits, .. }) = set.values().next().expect("a set has a file");
        let shards: u64 = of.parse().expect("it was read before");
        // The first gap is found within as many numbers as there are files.
        let gap = (0..shards.min(set.len() as u64 + 1)).find(|number| !set.contains_key(number));
        if let Some(gap) = gap {
            let expected = file.with_file_name(format!("{prefix}-{gap:0digits$}-of-{of}.parquet"));
            return Err(DatasetError::missing_shard(label(root, &expected), shards));
        }
    }
    Ok(())
}

/// Encoded images of a batch.
fn cells(column: &ArrayRef) -> Option<Vec<Cell<'_>>> {
    let bytes = column.as_struct_opt().map_or(Some(column), |outer| outer.column_by_name("bytes"))?;
    let cells =
        bytes.as_binary_opt::<i32>()?.iter().enumerate().map(|(row, bytes)| {
            bytes.filter(|_| column.is_valid(row)).ok_or_else(|| "image is null".to_owned())
        });
    Some(cells.collect())
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

    #[track_caller]
    fn check_set(names: &[&str], says: Option<&str>) {
        let root = Path::new("/data");
        let files: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        let found = check_files(root, &files).map_err(|error| error.to_string());
        match says {
            None => assert_eq!(found, Ok(()), "{names:?}"),
            Some(says) => assert!(found.clone().unwrap_err().contains(says), "{names:?}: {found:?}"),
        }
    }

    #[test]
    fn a_split_is_one_whole_set_of_files() {
        check_set(&["train.parquet"], None);
        check_set(&["train/a.parquet", "train/b.parquet"], None);
        check_set(&["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], None);
        check_set(&["train-0-of-2-c3b4.parquet", "train-1-of-2-fe01.parquet"], None);
        check_set(&["train-a-0-of-1.parquet", "train-b-0-of-1.parquet"], None);
        check_set(&["train-00000-of-00002-c3b4.parquet"], Some("train-00001-of-00002.parquet"));
        check_set(&["train-a-0-of-1.parquet", "train-b-0-of-2.parquet"], Some("train-b-1-of-2.parquet"));
        check_set(&["train-1-of-3.parquet", "train-2-of-3.parquet"], Some("train-0-of-3.parquet"));
        let again = Some("may be the same samples again");
        check_set(&["train-0-of-1.parquet", "train-0-of-4.parquet"], again);
        check_set(&["train-0-of-1.parquet", "train-00-of-1.parquet"], again);
        check_set(&["train-0-of-1.parquet", "train-0-of-1-c3b4.parquet"], again);
        check_set(&["train-0-of-1.parquet", "train.parquet"], again);
        check_set(&["train.parquet", "train/a.parquet"], again);
        check_set(&["train/a.parquet", "train/en/a.parquet"], again);
        check_set(&["data/train.parquet", "train.parquet"], again);
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
        check(
            &["train/en/a.parquet", "train/b.parquet"],
            &[(Train, &["train/b.parquet", "train/en/a.parquet"])],
        );
        check(&["cifar.parquet"], &[(Train, &["cifar.parquet"])]);
        check(&["notes.txt"], &[]);
    }
}
