//! Parquet files in the layout of the Hugging Face hub, whole and broken.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;

/// A PNG of one colour per pixel that depends on its place and on `seed`.
pub fn png(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let pixels: Vec<u8> =
        (0..width * height * 3).map(|byte| (byte.wrapping_mul(31) ^ seed.wrapping_mul(97)) as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("memory takes everything");
    writer.write_image_data(&pixels).expect("as many pixels as the size says");
    writer.finish().expect("memory takes everything");
    bytes
}

/// Whole images, numbered from `0`.
pub fn images(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| png(32, 32, number)).collect()
}

/// Writes `image: struct<bytes, path>` and `label: int64`, the label being the row modulo 10.
pub fn write(path: &Path, images: &[Vec<u8>]) {
    let label: ArrayRef =
        Arc::new(Int64Array::from_iter_values((0..images.len() as i64).map(|row| row % 10)));
    write_columns(path, [("image", image_column(images)), ("label", label)]);
}

/// A column `struct<bytes, path>`.
pub fn image_column(images: &[Vec<u8>]) -> ArrayRef {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    let paths: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..images.len()).map(|row| format!("{row}.png"))));
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    Arc::new(StructArray::from(vec![
        (field("bytes", DataType::Binary), bytes),
        (field("path", DataType::Utf8), paths),
    ]))
}

/// Writes any columns.
pub fn write_columns<'a>(path: &Path, columns: impl IntoIterator<Item = (&'a str, ArrayRef)>) {
    std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = std::fs::File::create(path).expect("a file can be made");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema that Parquet has");
    writer.write(&batch).expect("a file takes rows");
    writer.close().expect("a file takes its end");
}
