//! CIFAR-10 and CIFAR-100 in their binary form.
//!
//! A file is a row of records without any header: one label byte (CIFAR-100: the coarse label,
//! then the fine one, which is used), and 32x32 red, green and blue planes.
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::detect::{self, Files};
use crate::error::DatasetError;
use crate::import::{self, Progress};
use crate::pack::{PackSpec, Packer, allowed_labels};
use crate::packed;
use pba_types::SplitName;

use crate::split::SplitState;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const BATCHES: u64 = 5;

/// Files of one of the two datasets.
pub(crate) struct Source {
    variant: Variant,
    pub(crate) files: Files,
    /// The file with the names of the classes, if there is one.
    pub(crate) names: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Ten,
    Hundred,
}

impl Variant {
    fn format(self) -> &'static str {
        match self {
            Variant::Ten => "CIFAR-10 binary",
            Variant::Hundred => "CIFAR-100 binary",
        }
    }

    fn classes(self) -> usize {
        match self {
            Variant::Ten => 10,
            Variant::Hundred => 100,
        }
    }

    /// Label bytes before the pixels; the last one counts.
    fn label_bytes(self) -> usize {
        match self {
            Variant::Ten => 1,
            Variant::Hundred => 2,
        }
    }

    fn record_bytes(self) -> usize {
        self.label_bytes() + 3 * PLANE
    }

    /// The folder that the published archive unpacks to.
    fn archive_folder(self) -> &'static str {
        match self {
            Variant::Ten => "cifar-10-batches-bin",
            Variant::Hundred => "cifar-100-binary",
        }
    }
}

/// The CIFAR files in a folder, or in the published archive's folder within it.
pub(crate) fn find(root: &Path) -> Result<Option<Source>, DatasetError> {
    for variant in [Variant::Ten, Variant::Hundred] {
        for folder in [root.to_owned(), root.join(variant.archive_folder())] {
            let existing = |name: &str| Some(folder.join(name)).filter(|file| file.is_file());
            let (train, test, names) = match variant {
                Variant::Ten => {
                    let batch = |i| folder.join(format!("data_batch_{i}.bin"));
                    let there = (1..=BATCHES).any(|i| batch(i).is_file());
                    // Without one of them, opening it says which.
                    let train = if there { (1..=BATCHES).map(batch).collect() } else { Vec::new() };
                    (train, existing("test_batch.bin"), existing("batches.meta.txt"))
                }
                Variant::Hundred => {
                    let train = existing("train.bin").into_iter().collect();
                    (train, existing("test.bin"), existing("fine_label_names.txt"))
                }
            };
            let mut files = Files::new();
            if !train.is_empty() {
                if let Some(missing) = train.iter().find(|file| !file.is_file()) {
                    let file = detect::label(root, missing);
                    return Err(DatasetError::MissingShard { file, shards: BATCHES });
                }
                files.insert(SplitName::Train, train);
            }
            files.extend(test.map(|file| (SplitName::Test, vec![file])));
            if !files.is_empty() {
                return Ok(Some(Source { variant, files, names }));
            }
        }
    }
    Ok(None)
}

/// Packs what is not yet in `folder`.
pub(crate) fn import(
    root: &Path,
    source: &Source,
    folder: &Path,
    progress: &dyn Fn(Progress),
) -> BTreeMap<SplitName, SplitState> {
    let import = |name: SplitName, files: &[PathBuf]| {
        if let Some(split) = import::cached(folder, name) {
            return Ok(split);
        }
        let file = import::file(folder, name);
        pack(root, source, name, files, &file, progress)?;
        packed::open(&file).map(Into::into)
    };
    let state = |(name, files): (&SplitName, &Vec<PathBuf>)| match import(*name, files) {
        Ok(split) => (*name, SplitState::Ready(split)),
        Err(error) => (*name, SplitState::Failed(error)),
    };
    source.files.iter().map(state).collect()
}

fn class_names(root: &Path, source: &Source) -> Result<Vec<String>, DatasetError> {
    let expected = source.variant.classes();
    let Some(file) = &source.names else { return Ok((0..expected).map(|i| i.to_string()).collect()) };
    let text = std::fs::read_to_string(file).map_err(DatasetError::io(file, "read it"))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    if names.len() != expected {
        return Err(DatasetError::Classes { file: detect::label(root, file), found: names.len(), expected });
    }
    Ok(names)
}

fn pack(
    root: &Path,
    source: &Source,
    name: SplitName,
    files: &[PathBuf],
    to: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), DatasetError> {
    let (format, record_bytes) = (source.variant.format(), source.variant.record_bytes());
    let classes = class_names(root, source)?;
    let mut rows_of = Vec::new();
    for file in files {
        let found = file.metadata().map_err(DatasetError::io(file, "read it"))?.len();
        let record = record_bytes as u64;
        if found == 0 || found % record != 0 {
            return Err(DatasetError::FileSize { file: detect::label(root, file), found, record, format });
        }
        rows_of.push(found / record);
    }
    let rows_total = rows_of.iter().sum();
    let mut packer = Packer::create(
        to,
        (SIDE as u32, SIDE as u32),
        PackSpec { classes: classes.clone(), rows: rows_total, source: format!("{format}, {name}") },
    )?;
    let (mut record, mut pixels) = (vec![0; record_bytes], vec![0; 3 * PLANE]);
    let mut rows_done = 0;
    for (file, &rows) in files.iter().zip(&rows_of) {
        let io = DatasetError::io(file, "read it");
        let mut reader = BufReader::with_capacity(1 << 20, File::open(file).map_err(&io)?);
        for row in 0..rows {
            reader.read_exact(&mut record).map_err(&io)?;
            let (labels, planes) = record.split_at(source.variant.label_bytes());
            let label = labels[labels.len() - 1];
            if usize::from(label) >= classes.len() {
                return Err(DatasetError::Label {
                    file: detect::label(root, file),
                    row,
                    value: label.to_string(),
                    allowed: allowed_labels(classes.len()),
                });
            }
            for (place, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *pixel = [planes[place], planes[PLANE + place], planes[2 * PLANE + place]];
            }
            packer.push(&pixels, label.into())?;
        }
        rows_done += rows;
        progress(Progress { split: name, rows_done, rows_total });
    }
    packer.finish()
}
