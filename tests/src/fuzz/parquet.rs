//! Parquet: what is imported is what a plain reading of the same columns finds, row by row.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, downcast_integer_array,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::file::properties::{WriterProperties, WriterVersion};
use pba_datasets::SplitName;

use crate::fuzz::rows::{Place, imported};
use crate::fuzz::{Target, as_it_is, image};
use crate::parquet_files;

pub(super) const TARGET: Target = Target {
    name: "parquet",
    check,
    mend: as_it_is,
    seeds,
    words: &[
        b"PAR1",
        b"image",
        b"label",
        b"bytes",
        b"huggingface",
        b"\x15\x00",
        b"\x15\x02",
        b"\x15\x06",
        b"\x2c",
        b"\x4c",
        b"\x5c",
        b"\xff\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x08",
    ],
    bytes_max: 8192,
    mutations: 450,
};

fn check(bytes: &[u8]) {
    if !bytes.starts_with(b"PAR1") {
        return;
    }
    let place = Place::new();
    place.write("train.parquet", bytes);
    let dataset = place.open("train.parquet").expect("its format is told by its first bytes");
    let Some(rows) = imported(&dataset, SplitName::Train) else { return };
    if let Some((images, labels)) = read(&place.path().join("data/train.parquet")) {
        let labels: Vec<i64> = match labels {
            Labels::Numbers(labels) => labels,
            Labels::Words(words) => words
                .iter()
                .map(|word| rows.classes.iter().position(|class| class == word).expect("a class") as i64)
                .collect(),
        };
        rows.check(&images, &labels);
    }
}

enum Labels {
    Numbers(Vec<i64>),
    Words(Vec<String>),
}

/// Columns `image` and `label`, read with nothing in between; nothing unless there are exactly these.
fn read(path: &Path) -> Option<(Vec<Vec<u8>>, Labels)> {
    let file = std::fs::File::open(path).expect("it was written");
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).expect("it was read before");
    // The reader panics on these.
    let mut columns = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    let begins =
        |column: &ColumnChunkMetaData| column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    if columns.any(|column| begins(column) < 0 || column.compressed_size() < 0) {
        return None;
    }
    let names: Vec<&str> = builder.schema().fields().iter().map(|field| field.name().as_str()).collect();
    if names != ["image", "label"] {
        return None;
    }
    let (mut images, mut numbers, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for batch in builder.build().ok()? {
        // Fields beside the bytes of an image, which the import does not read, may be broken.
        let batch = batch.ok()?;
        let image = batch.column(0);
        let bytes = image.as_struct_opt().map_or(Some(image), |image| image.column_by_name("bytes"))?;
        images.extend(bytes.as_binary_opt::<i32>()?.iter().map(|bytes| bytes.unwrap_or_default().to_vec()));
        let label = batch.column(1);
        if let Some(label) = label.as_string_opt::<i32>() {
            words.extend(label.iter().map(|word| word.unwrap_or_default().to_owned()));
            continue;
        }
        let values: Vec<i128> = downcast_integer_array!(
            label => label.values().iter().map(|&value| value.into()).collect(),
            _ => return None
        );
        numbers.extend(values.into_iter().map(|value| value as i64));
    }
    Some((images, if words.is_empty() { Labels::Numbers(numbers) } else { Labels::Words(words) }))
}

fn seeds() -> Vec<Vec<u8>> {
    let images: Vec<Vec<u8>> = (0..3).map(|number| parquet_files::png(2, 3, number)).collect();
    let different = ["one_pixel.jpg", "one_pixel.png", "bilevel.png"].map(image).to_vec();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![2, 0, 1]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["cat", "dog", "cat"]));
    let plain: ArrayRef = Arc::new(BinaryArray::from_iter_values(&images));
    let in_struct = parquet_files::image_column(&images);
    let properties = || WriterProperties::builder().set_dictionary_enabled(false);
    let features = r#"{"info":{"features":{"label":{"names":["a","b","c"],"_type":"ClassLabel"}}}}"#;
    let named = KeyValue::new("huggingface".to_owned(), features.to_owned());
    let columns = |image: &ArrayRef, label: &ArrayRef| {
        RecordBatch::try_from_iter([("image", image.clone()), ("label", label.clone())])
            .expect("columns of one length")
    };
    let both = columns(&in_struct, &numbers);
    let writers = [
        (columns(&plain, &numbers), properties().build()),
        (columns(&plain, &words), WriterProperties::builder().build()),
        (both.clone(), properties().set_key_value_metadata(Some(vec![named])).build()),
        (both.clone(), properties().set_compression(Compression::SNAPPY).build()),
        (both.clone(), properties().set_compression(Compression::ZSTD(ZstdLevel::default())).build()),
        (both.clone(), properties().set_compression(Compression::GZIP(GzipLevel::default())).build()),
        (both.clone(), properties().set_compression(Compression::LZ4_RAW).build()),
        (both.clone(), properties().set_writer_version(WriterVersion::PARQUET_2_0).build()),
        (both, properties().set_max_row_group_row_count(Some(1)).set_data_page_row_count_limit(1).build()),
        (columns(&parquet_files::image_column(&different), &numbers), properties().build()),
    ];
    let file = |(batch, properties): (RecordBatch, WriterProperties)| {
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a schema");
        writer.write(&batch).expect("memory takes everything");
        writer.close().expect("memory takes everything");
        bytes
    };
    writers.map(file).into()
}
