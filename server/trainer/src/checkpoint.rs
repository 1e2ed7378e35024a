//! Checkpoints: one safetensors file holds all members after an epoch.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use crate::net::Rows;

const FORMAT: &str = "pba-checkpoint/1";
/// The one checkpoint in the middle of a generation.
const BETWEEN: &str = "between.safetensors";

/// The checkpoints of a run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// What the numbers belong to: the model's name.
    model: String,
}

impl Checkpoints {
    pub(crate) fn new(folder: &Path, model: String) -> Checkpoints {
        Checkpoints { folder: folder.to_owned(), model }
    }

    fn path(&self, epoch: u32) -> PathBuf {
        self.folder.join(format!("checkpoint-{epoch:06}.safetensors"))
    }

    /// Epochs of the checkpoints that are there, ascending.
    pub(crate) fn epochs(&self) -> anyhow::Result<Vec<u32>> {
        let mut epochs = Vec::new();
        let entries = fs::read_dir(&self.folder)
            .with_context(|| format!("cannot list the run folder {}", self.folder.display()))?;
        for entry in entries {
            let name = entry?.file_name();
            let epoch = name.to_str().and_then(|name| {
                name.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse::<u32>().ok()
            });
            epochs.extend(epoch);
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Saves the members as they are after a generation.
    pub(crate) fn save(&self, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        self.write(&self.path(epoch), epoch, epoch, rows)
    }

    /// Reads what [`Checkpoints::save`] saved.
    pub(crate) fn load(&self, epoch: u32, members: u32) -> anyhow::Result<Rows> {
        let (saved, _, rows) = self.read(&self.path(epoch), members)?;
        if saved != epoch {
            bail!("the checkpoint of epoch {epoch} holds epoch {saved}");
        }
        Ok(rows)
    }

    /// Saves the members as they are after `epoch`, in the middle of the generation that began
    /// after `generation` epochs.
    pub(crate) fn save_between(&self, generation: u32, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        self.write(&self.folder.join(BETWEEN), generation, epoch, rows)
    }

    /// What [`Checkpoints::save_between`] saved in this generation, if it did.
    pub(crate) fn load_between(&self, generation: u32, members: u32) -> Option<(u32, Rows)> {
        let (epoch, saved_generation, rows) = self.read(&self.folder.join(BETWEEN), members).ok()?;
        (saved_generation == generation && epoch > generation).then_some((epoch, rows))
    }

    /// Writes a checkpoint; it is there as a whole or not at all.
    fn write(&self, path: &Path, generation: u32, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        let tensors = [
            ("parameters", &rows.parameters),
            ("momentum", &rows.momentum),
            ("statistics", &rows.statistics),
        ];
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let size = tensor.size().into_iter().map(|side| side as usize).collect();
                let mut numbers = vec![0f32; tensor.numel()];
                tensor.contiguous().copy_data(&mut numbers, tensor.numel());
                (name, size, numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, size, data)| Ok((*name, TensorView::new(Dtype::F32, size.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("model".to_owned(), self.model.clone()),
            ("epoch".to_owned(), epoch.to_string()),
            ("generation".to_owned(), generation.to_string()),
        ]);
        let file = safetensors::serialize(views, Some(metadata))?;
        write_whole(path, &file).with_context(|| {
            format!("cannot save the checkpoint of epoch {epoch}; the run can go on from the one before")
        })
    }

    /// Epoch, generation and members of a checkpoint.
    fn read(&self, path: &Path, members: u32) -> anyhow::Result<(u32, u32, Rows)> {
        let read = || -> anyhow::Result<(u32, u32, Rows)> {
            let bytes = fs::read(path)?;
            let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
            let metadata = metadata.metadata().clone().unwrap_or_default();
            let says = |key: &str| metadata.get(key).map_or("", String::as_str);
            if (says("format"), says("model")) != (FORMAT, &self.model) {
                bail!("it holds {:?} of {:?}, not of {:?}", says("format"), says("model"), self.model);
            }
            let file = SafeTensors::deserialize(&bytes)?;
            let tensor = |name: &str| -> anyhow::Result<Tensor> {
                let view = file.tensor(name)?;
                match view.shape() {
                    [rows, _] if *rows == members as usize && view.dtype() == Dtype::F32 => {
                        let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
                        Ok(Tensor::from_data_size(view.data(), &size, Kind::Float))
                    }
                    shape => {
                        Err(anyhow!("{name} is {:?} {shape:?}, not a row for each member", view.dtype()))
                    }
                }
            };
            let rows = Rows {
                parameters: tensor("parameters")?,
                momentum: tensor("momentum")?,
                statistics: tensor("statistics")?,
            };
            Ok((says("epoch").parse()?, says("generation").parse()?, rows))
        };
        read().with_context(|| format!("cannot load the checkpoint {}", path.display()))
    }

    /// Deletes all checkpoints but those after these generations.
    pub(crate) fn keep(&self, epochs: &[u32]) -> anyhow::Result<()> {
        let between = self.folder.join(BETWEEN);
        let old = self.epochs()?.into_iter().filter(|epoch| !epochs.contains(epoch));
        for path in old.map(|epoch| self.path(epoch)).chain(between.exists().then_some(between)) {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        Ok(())
    }
}

/// Replaces a file as a whole, and says in plain words when the disk is full.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    pba_files::replace(path, bytes).map_err(|error| match error.kind() {
        ErrorKind::StorageFull => std::io::Error::new(error.kind(), "no space left on the disk"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(members: i64) -> Rows {
        let random = |len| Tensor::randn([members, len], (Kind::Float, tch::Device::Cpu));
        Rows { parameters: random(32), momentum: random(32), statistics: random(16) }
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
        let saved = rows(3);
        for epoch in [3, 6, 1_000_000] {
            checkpoints.save(epoch, &saved).unwrap();
        }
        assert_eq!(checkpoints.epochs().unwrap(), [3, 6, 1_000_000]);
        let loaded = checkpoints.load(6, 3).unwrap();
        assert_eq!(loaded.parameters, saved.parameters);
        assert_eq!(loaded.momentum, saved.momentum);
        assert_eq!(loaded.statistics, saved.statistics);
        checkpoints.keep(&[6]).unwrap();
        assert_eq!(checkpoints.epochs().unwrap(), [6]);
    }

    #[test]
    fn a_save_in_between_belongs_to_its_generation() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
        assert!(checkpoints.load_between(0, 2).is_none());
        checkpoints.save_between(3, 5, &rows(2)).unwrap();
        assert_eq!(checkpoints.load_between(3, 2).unwrap().0, 5);
        assert!(checkpoints.load_between(6, 2).is_none());
        assert!(checkpoints.epochs().unwrap().is_empty());
        checkpoints.keep(&[]).unwrap();
        assert!(checkpoints.load_between(3, 2).is_none());
    }

    #[test]
    fn another_runs_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
        checkpoints.save(3, &rows(3)).unwrap();
        let refused = |checkpoints: &Checkpoints, epoch, members| {
            format!("{:#}", checkpoints.load(epoch, members).unwrap_err())
        };
        assert!(refused(&checkpoints, 3, 4).contains("not a row for each member"));
        assert!(refused(&checkpoints, 4, 3).contains("checkpoint-000004"));
        let other = Checkpoints::new(folder.path(), "wrn-40-2".to_owned());
        assert!(refused(&other, 3, 3).contains("\"tiny\""));
        fs::write(folder.path().join("checkpoint-000003.safetensors"), b"torn").unwrap();
        assert!(refused(&checkpoints, 3, 3).contains("cannot load"));
    }
}
