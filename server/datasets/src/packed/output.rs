//! The file that a packer writes. It appears at its destination when it is complete.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, Field, Schema};
use pba_files::Replacement;
use pba_types::Digest;

use crate::error::DatasetError;
use crate::packed::moments::Moments;
use crate::packed::spec::{self, PackSpec};

/// How the names of unfinished files begin.
const PARTIAL_PREFIX: &str = ".packing-";

/// Removes the unfinished files that killed processes left in the folders of `cache_dir`: those that have
/// not been written to for `idle`, as a process that is packing writes all the time. Returns how many.
///
/// Files that cannot be listed or removed stay, and take disk space only.
pub fn remove_partials(cache_dir: &Path, idle: Duration) -> usize {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_abandoned = |file: &std::fs::DirEntry| {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        file.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX)
            && modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= idle))
    };
    entries(cache_dir)
        .flat_map(|folder| entries(&folder.path()))
        .filter(|file| is_abandoned(file) && std::fs::remove_file(file.path()).is_ok())
        .count()
}

/// An Arrow file on its way to its destination. Dropping it leaves nothing behind.
pub(crate) struct Output {
    destination: PathBuf,
    replacement: Replacement,
    writer: FileWriter<BufWriter<File>>,
    head_bytes: u64,
    schema: Arc<Schema>,
}

impl Output {
    /// Starts a file of some columns that will appear at `destination`.
    pub(crate) fn create(
        destination: &Path,
        format: &str,
        fields: Vec<Field>,
        spec: &PackSpec,
    ) -> Result<Output, DatasetError> {
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DatasetError::io(folder, "create the folder"))?;
        let create = DatasetError::io(destination, "create it");
        let replacement = Replacement::begin(destination, PARTIAL_PREFIX).map_err(&create)?;
        let file = replacement.file().try_clone().map_err(&create)?;
        let schema = Arc::new(schema(format, fields, spec));
        let mut writer = FileWriter::try_new(BufWriter::with_capacity(1 << 20, file), &schema)
            .map_err(write_error(destination))?;
        writer.flush().map_err(write_error(destination))?;
        let mut file = replacement.file();
        let head_bytes = file.stream_position().map_err(DatasetError::io(destination, "write"))?;
        Ok(Output { destination: destination.to_owned(), replacement, writer, head_bytes, schema })
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    pub(crate) fn write(&mut self, columns: Vec<arrow_array::ArrayRef>) -> Result<(), DatasetError> {
        let batch =
            RecordBatch::try_new(self.schema.clone(), columns).map_err(write_error(&self.destination))?;
        self.writer.write(&batch).map_err(write_error(&self.destination))
    }

    /// Fills in what is known at the end, and puts the file in its place.
    pub(crate) fn finish(mut self, digest: Digest, moments: &Moments) -> Result<(), DatasetError> {
        let destination = self.destination;
        let io = DatasetError::io(&destination, "write");
        self.writer.finish().map_err(write_error(&destination))?;
        let buffered = self.writer.into_inner().map_err(write_error(&destination))?;
        let mut file = buffered.into_inner().map_err(|error| io(error.into_error()))?;
        let (mean, std) = moments.mean_and_std();
        let values =
            [(HOLE_DIGEST, digest.to_string()), (HOLE_MEAN, channels(mean)), (HOLE_STD, channels(std))];
        fill_holes(&mut file, self.head_bytes, &values).map_err(&io)?;
        self.replacement.commit().map_err(&io)
    }
}

fn write_error(file: &Path) -> impl Fn(ArrowError) -> DatasetError + '_ {
    move |error| match error {
        ArrowError::IoError(_, error) => DatasetError::io(file, "write")(error),
        error => DatasetError::io(file, "write")(std::io::Error::other(error)),
    }
}

fn schema(format: &str, fields: Vec<Field>, of: &PackSpec) -> Schema {
    let metadata = [
        (spec::KEY_FORMAT, format.to_owned()),
        (spec::KEY_DIGEST, HOLE_DIGEST.to_owned()),
        (spec::KEY_MEAN, HOLE_MEAN.to_owned()),
        (spec::KEY_STD, HOLE_STD.to_owned()),
        (spec::KEY_CLASSES, serde_json::json!(of.classes).to_string()),
        (spec::KEY_ROWS, of.rows.to_string()),
        // A control character would be mistaken for a hole.
        (spec::KEY_SOURCE, of.source.chars().filter(|c| !c.is_control()).collect()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    Schema::new_with_metadata(fields, HashMap::from(metadata))
}

// Digest, mean and standard deviation are known after the last row, but Arrow writes the schema
// first, and again in the footer. So both are written with holes of the right length, which are
// filled at the end. No other text in a schema holds a control character, so a hole is found once.
const HOLE_DIGEST: &str = "\u{1}----------------------------------------------------digest\u{1}----";
const HOLE_MEAN: &str = "\u{1}---------------------------------------------------mean\u{1}----";
const HOLE_STD: &str = "\u{1}----------------------------------------------------std\u{1}----";

/// Three fractions as a JSON list of always the same length.
fn channels([red, green, blue]: [f64; 3]) -> String {
    format!("[{red:.17},{green:.17},{blue:.17}]")
}

fn fill_holes(file: &mut File, head_bytes: u64, values: &[(&str, String)]) -> std::io::Result<()> {
    let mut tail = [0; 4];
    let end = file.seek(SeekFrom::End(-10))?;
    file.read_exact(&mut tail)?;
    let footer_bytes = u64::from(u32::from_le_bytes(tail));
    for (start, length) in [(0, head_bytes), (end - footer_bytes, footer_bytes)] {
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        for (hole, value) in values {
            assert_eq!(hole.len(), value.len(), "a value fills its hole");
            let place = bytes.windows(hole.len()).position(|window| window == hole.as_bytes());
            let place =
                place.ok_or_else(|| std::io::Error::other("the schema came out without its metadata"))?;
            bytes[place..place + value.len()].copy_from_slice(value.as_bytes());
        }
        file.seek(SeekFrom::Start(start))?;
        file.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_have_the_length_of_what_fills_them() {
        assert_eq!(HOLE_DIGEST.len(), 64);
        for hole in [HOLE_MEAN, HOLE_STD] {
            assert_eq!(hole.len(), channels([0.0, 0.5, 1.0]).len());
        }
    }
}
