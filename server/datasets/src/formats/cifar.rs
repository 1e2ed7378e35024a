//! CIFAR-10 and CIFAR-100 in their binary form.
//!
//! A file is a row of records without any header: one label byte (CIFAR-100: the coarse label,
//! then the fine one, which is used), and 32x32 red, green and blue planes.
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use pba_types::{ImageShape, SplitName};

use crate::cache::Key;
use crate::error::DatasetError;
use crate::formats::files::{self, Files, label};
use crate::formats::format::{Format, Found, Source};
use crate::packed::spec::{PackSpec, allowed_labels};
use crate::packed::target::{Stop, Target};

pub(crate) const FORMAT: Format = Format {
    name: "cifar",
    looked_for: "CIFAR-10 binary (data_batch_1.bin .. data_batch_5.bin, test_batch.bin), \
        CIFAR-100 binary (train.bin, test.bin)",
    file: None,
    find,
};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Records read at a time.
const READ_RECORDS: u64 = 1000;

/// What tells the two datasets apart.
struct Variant {
    name: &'static str,
    classes: usize,
    /// Label bytes before the pixels; the last one counts.
    label_bytes: usize,
    /// The folder that the published archive unpacks to.
    archive_folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// The file with the names of the classes.
    class_names: &'static str,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        name: "CIFAR-10 binary",
        classes: 10,
        label_bytes: 1,
        archive_folder: "cifar-10-batches-bin",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        class_names: "batches.meta.txt",
    },
    Variant {
        name: "CIFAR-100 binary",
        classes: 100,
        label_bytes: 2,
        archive_folder: "cifar-100-binary",
        train: &["train.bin"],
        test: "test.bin",
        class_names: "fine_label_names.txt",
    },
];

/// Files of one of the two datasets.
struct Cifar {
    root: PathBuf,
    variant: &'static Variant,
    files: Files,
    /// The file with the names of the classes, if there is one.
    class_names: Option<PathBuf>,
}

/// The CIFAR files in a folder, or in the published archive's folder within it.
fn find(root: &Path) -> Result<Option<Found>, DatasetError> {
    for variant in &VARIANTS {
        for folder in [root.to_owned(), root.join(variant.archive_folder)] {
            let existing = |name| Some(folder.join(name)).filter(|file| file.is_file());
            let train: Vec<PathBuf> = variant.train.iter().map(|name| folder.join(name)).collect();
            let mut files = Files::new();
            if train.iter().any(|file| file.is_file()) {
                files.insert(SplitName::Train, train);
            }
            files.extend(existing(variant.test).map(|file| (SplitName::Test, vec![file])));
            if !files.is_empty() {
                let class_names = existing(variant.class_names);
                let found = Cifar { root: root.to_owned(), variant, files, class_names };
                return Ok(Some(Found::Source(Box::new(found))));
            }
        }
    }
    Ok(None)
}

impl Cifar {
    fn class_names(&self) -> Result<Vec<String>, DatasetError> {
        let expected = self.variant.classes;
        let Some(file) = &self.class_names else { return Ok((0..expected).map(|i| i.to_string()).collect()) };
        let text = std::fs::read_to_string(file).map_err(DatasetError::io(file, "read it"))?;
        let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        match names.len() {
            found if found == expected => Ok(names),
            found => Err(DatasetError::classes(label(&self.root, file), found, expected)),
        }
    }

    fn record_bytes(&self) -> usize {
        self.variant.label_bytes + 3 * PLANE
    }

    fn records(&self, file: &Path) -> Result<u64, DatasetError> {
        let found = file.metadata().map_err(DatasetError::io(file, "read it"))?.len();
        let record = self.record_bytes() as u64;
        if found == 0 || found % record != 0 {
            let expected = format!("a multiple of {record}, as in {}", self.variant.name);
            let reason = format!("{found} bytes; expected {expected}");
            return Err(DatasetError::unreadable(label(&self.root, file), reason));
        }
        Ok(found / record)
    }
}

impl Source for Cifar {
    fn splits(&self) -> BTreeMap<SplitName, PathBuf> {
        files::first(&self.files)
    }

    fn key(&self) -> Result<Key, DatasetError> {
        let files = self.files.values().flatten().chain(&self.class_names);
        // One that is missing is told of by its split.
        Key::of_files(&self.root, files.filter(|file| file.is_file()))
    }

    fn spec(&self, split: SplitName) -> Result<PackSpec, DatasetError> {
        let (classes, files) = (self.class_names()?, &self.files[&split]);
        if let Some(missing) = files.iter().find(|file| !file.is_file()) {
            return Err(DatasetError::missing_shard(label(&self.root, missing), files.len() as u64));
        }
        let rows = files.iter().map(|file| self.records(file)).sum::<Result<_, _>>()?;
        Ok(PackSpec { classes, rows, source: format!("{}, {split}", self.variant.name) })
    }

    fn rows(&self, split: SplitName, target: &mut Target<'_>) -> Result<(), Stop> {
        let (classes, record_bytes) = (self.variant.classes, self.record_bytes());
        let shape = ImageShape { height: SIDE as u32, width: SIDE as u32 };
        for file in &self.files[&split] {
            let io = DatasetError::io(file, "read it");
            let (mut reader, records) = (pba_files::open(file).map_err(&io)?, self.records(file)?);
            for start in (0..records).step_by(READ_RECORDS as usize) {
                let mut read = vec![0; READ_RECORDS.min(records - start) as usize * record_bytes];
                reader.read_exact(&mut read).map_err(&io)?;
                let (mut pixels, mut labels) = (Vec::new(), Vec::new());
                for (row, record) in (start..).zip(read.chunks_exact(record_bytes)) {
                    let (found, planes) = record.split_at(self.variant.label_bytes);
                    let found = found[found.len() - 1];
                    if usize::from(found) >= classes {
                        let (file, allowed) = (label(&self.root, file), allowed_labels(classes));
                        return Err(DatasetError::label(&file, row, found, allowed).into());
                    }
                    labels.push(found.into());
                    pixels.extend((0..PLANE).flat_map(|i| [0, 1, 2].map(|plane| planes[plane * PLANE + i])));
                }
                target.add_pixels(shape, &pixels, &labels)?;
            }
        }
        Ok(())
    }
}
