//! Parquet in the layout of the Hugging Face hub: one column of encoded images, one of labels.
//!
//! The image column is a struct with a binary field `bytes`, or plain binary; the label column
//! holds integers or words. Class names come from the `huggingface` metadata when it is there.

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
use serde_json::Value;

use crate::detect::{self, Files};
use crate::error::DatasetError;
use crate::import::{self, Progress};
use crate::pack::{CLASSES_MAX, PackSpec, allowed_labels};
use crate::packed;
use pba_types::SplitName;

use crate::split::SplitState;
use crate::target::{self, Cell, Stop, Target};

/// Rows read at a time: encoded images of some megabytes each still fit in memory.
const READ_ROWS: usize = 128;
/// Rows of labels read at a time.
const LABEL_ROWS: usize = 8192;
/// Names that decide between several columns that could hold the images.
const IMAGE_NAMES: [&str; 2] = ["image", "img"];
/// The same for labels.
const LABEL_NAMES: [&str; 7] = ["label", "labels", "fine_label", "class", "class_label", "target", "y"];

/// Packs what is not yet in `folder`.
pub(crate) fn import(
    root: &Path,
    files: &Files,
    folder: &Path,
    progress: &dyn Fn(Progress),
) -> BTreeMap<SplitName, SplitState> {
    let mut states: BTreeMap<SplitName, SplitState> = files
        .keys()
        .filter_map(|&name| Some((name, SplitState::Ready(import::cached(folder, name)?))))
        .collect();
    if states.len() == files.len() {
        return states;
    }
    // Without names in the metadata, the classes are those that any split mentions.
    let scans: BTreeMap<SplitName, Result<Scan, DatasetError>> =
        files.iter().map(|(&name, files)| (name, guarded(root, files, || Scan::read(root, files)))).collect();
    let classes = Classes::of(scans.values().flatten());
    for (name, scan) in scans {
        if states.contains_key(&name) {
            continue;
        }
        let file = import::file(folder, name);
        let split = scan
            .and_then(|scan| {
                guarded(root, &files[&name], || pack(root, name, scan, &classes, &file, progress))
            })
            .and_then(|()| packed::open(&file));
        states.insert(
            name,
            match split {
                Ok(split) => SplitState::Ready(split.into()),
                Err(error) => SplitState::Failed(error),
            },
        );
    }
    states
}

/// Should the Parquet reader panic on a damaged file, the server must live.
fn guarded<T>(
    root: &Path,
    files: &[PathBuf],
    work: impl FnOnce() -> Result<T, DatasetError>,
) -> Result<T, DatasetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let file = files.first().map(|file| detect::label(root, file)).unwrap_or_default();
        Err(DatasetError::Parquet { file, reason: "it makes the Parquet reader panic".into() })
    })
}

/// One file, opened, its columns found.
struct Table {
    path: PathBuf,
    /// As messages name it.
    file: String,
    image: Column,
    label: Column,
    /// Names of the classes, if the file says.
    names: Option<Vec<String>>,
}

/// A column: its name, and the leaf of the Parquet schema that holds it.
struct Column {
    leaf: usize,
}

impl Table {
    fn open(root: &Path, path: &Path) -> Result<Table, DatasetError> {
        let file = detect::label(root, path);
        let builder = builder(path, &file)?;
        let schema = builder.schema().clone();
        let fields: Vec<&Field> = schema.fields().iter().map(AsRef::as_ref).collect();
        let features = features(&builder);
        let (image, path_in_image) = {
            let field = choose(&file, &fields, is_image, "column of images", &IMAGE_NAMES, |_| false)?;
            let nested: &[&str] =
                if matches!(field.data_type(), DataType::Struct(_)) { &["bytes"] } else { &[] };
            (field, nested)
        };
        let class_names = |field: &Field| names(features.as_ref()?.get(field.name())?);
        let is_label = |field: &Field| field.name() != image.name() && (is_integer(field) || is_text(field));
        let label = choose(&file, &fields, is_label, "column of labels", &LABEL_NAMES, |field| {
            class_names(field).is_some()
        })?;
        let leaf = |field: &Field, nested: &[&str]| {
            let parts: Vec<&str> =
                std::iter::once(field.name().as_str()).chain(nested.iter().copied()).collect();
            let columns = builder.parquet_schema().columns();
            let leaf = columns.iter().position(|column| column.path().parts().iter().eq(&parts));
            leaf.map(|leaf| Column { leaf }).ok_or_else(|| DatasetError::Parquet {
                file: file.clone(),
                reason: format!("column {:?} has no data", parts.join(".")),
            })
        };
        let (image, names) = (leaf(image, path_in_image)?, class_names(label).filter(|_| is_integer(label)));
        let label = leaf(label, &[])?;
        Ok(Table { path: path.to_owned(), image, label, names, file })
    }

    fn read(&self, column: &Column, rows: usize) -> Result<ParquetRecordBatchReader, DatasetError> {
        let builder = builder(&self.path, &self.file)?;
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [column.leaf]);
        builder.with_projection(mask).with_batch_size(rows).build().map_err(self.damaged())
    }

    fn damaged<E: std::fmt::Display>(&self) -> impl Fn(E) -> DatasetError + '_ {
        move |error| damaged(&self.file, error)
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

/// The one column that will do; of several, the one with a preferred name, or said to be it by
/// the metadata, or else the only one that is no text.
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

/// Tables and labels of one split.
struct Scan {
    tables: Vec<Table>,
    /// Rows of each table.
    rows: Vec<u64>,
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

impl Scan {
    fn read(root: &Path, files: &[PathBuf]) -> Result<Scan, DatasetError> {
        check_shards(root, files)?;
        let tables = files.iter().map(|file| Table::open(root, file)).collect::<Result<Vec<_>, _>>()?;
        let (mut rows, mut labels) = (Vec::new(), None);
        let mut words = HashMap::new();
        for table in &tables {
            let mut row = 0;
            for batch in table.read(&table.label, LABEL_ROWS)? {
                let batch = batch.map_err(table.damaged())?;
                add_labels(table, row, batch.column(0), &mut labels, &mut words)?;
                row += batch.num_rows() as u64;
            }
            rows.push(row);
        }
        let labels = labels.filter(|labels| labels.len() > 0);
        let labels = labels.ok_or_else(|| DatasetError::Empty { file: tables[0].file.clone() })?;
        Ok(Scan { tables, rows, labels })
    }

    /// The table and the row within it that row `index` of the split is.
    fn place(&self, index: u64) -> (&Table, u64) {
        let mut row = index;
        for (table, &rows) in self.tables.iter().zip(&self.rows) {
            if row < rows {
                return (table, row);
            }
            row -= rows;
        }
        unreachable!("the index is below the number of rows")
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
                return Err(DatasetError::MissingShard { file: detect::label(root, &expected), shards });
            }
        }
        // One look per set of shards would do; the first file's is enough for the usual one.
        break;
    }
    Ok(())
}

fn add_labels(
    table: &Table,
    first_row: u64,
    column: &ArrayRef,
    labels: &mut Option<Labels>,
    words: &mut HashMap<String, u32>,
) -> Result<(), DatasetError> {
    let refuse = |row: usize, value: String, allowed: String| DatasetError::Label {
        file: table.file.clone(),
        row: first_row + row as u64,
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
    let Some(Labels::Numbers(labels)) = Some(labels.get_or_insert_with(|| Labels::Numbers(Vec::new())))
    else {
        return Err(refuse(0, "of integers".into(), "text, as in the first file".into()));
    };
    let values =
        integers(column).ok_or_else(|| damaged(&table.file, "labels of another type than in its schema"))?;
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
    fn of<'a>(scans: impl Iterator<Item = &'a Scan>) -> Classes {
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

/// Class names and class of every row.
fn resolve(scan: &Scan, classes: &Classes) -> Result<(Vec<String>, Vec<i64>), DatasetError> {
    match &scan.labels {
        Labels::Words(labels, list) => {
            let position = |word: &String| classes.words.binary_search(word).map(|position| position as i64);
            let ids: Vec<i64> = list.iter().map(|word| position(word).unwrap_or(-1)).collect();
            Ok((classes.words.clone(), labels.iter().map(|&id| ids[id as usize]).collect()))
        }
        Labels::Numbers(labels) => {
            let names = match &scan.tables[0].names {
                Some(names) => names.clone(),
                None => (0..classes.numbers).map(|number| number.to_string()).collect(),
            };
            if let Some(index) = labels.iter().position(|&label| label as usize >= names.len()) {
                let (table, row) = scan.place(index as u64);
                return Err(DatasetError::Label {
                    file: table.file.clone(),
                    row,
                    value: labels[index].to_string(),
                    allowed: allowed_labels(names.len()),
                });
            }
            Ok((names, labels.clone()))
        }
    }
}

fn pack(
    root: &Path,
    name: SplitName,
    scan: Scan,
    classes: &Classes,
    to: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), DatasetError> {
    let (classes, labels) = resolve(&scan, classes)?;
    let rows = labels.len() as u64;
    let source = root.file_name().unwrap_or_default().to_string_lossy();
    let spec = PackSpec { classes, rows, source: format!("Parquet {source}, {name}") };
    target::pack(to, &spec, &|target| feed(&scan, name, &labels, target, progress))
}

fn feed(
    scan: &Scan,
    name: SplitName,
    labels: &[i64],
    target: &mut Target<'_>,
    progress: &dyn Fn(Progress),
) -> Result<(), Stop> {
    let (mut rows_done, rows_total) = (0, labels.len() as u64);
    for (table, &rows) in scan.tables.iter().zip(&scan.rows) {
        let mut row = 0;
        for batch in table.read(&table.image, READ_ROWS)? {
            let batch = batch.map_err(table.damaged())?;
            let cells = cells(batch.column(0))
                .ok_or_else(|| damaged(&table.file, "its image column changed its type"))?;
            let count = cells.len() as u64;
            if row + count > rows {
                return Err(damaged(&table.file, "it has more images than labels").into());
            }
            let labels = &labels[rows_done as usize..][..cells.len()];
            target.add(&cells, labels, |i| (table.file.clone(), Some(row + i as u64)))?;
            row += count;
            rows_done += count;
            progress(Progress { split: name, rows_done, rows_total });
        }
        if row != rows {
            return Err(damaged(&table.file, format!("it has {row} images and {rows} labels")).into());
        }
    }
    Ok(())
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
