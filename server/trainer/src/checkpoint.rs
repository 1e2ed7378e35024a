//! Checkpoints: one safetensors file holds all members after an epoch.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use crate::network::rows::Rows;

const FORMAT: &str = "pba-checkpoint/1";
/// The checkpoint in the middle of a generation. The name is that of older versions.
const MID_GENERATION: &str = "between.safetensors";
/// A generation that takes longer than this is saved before its end, so that an interruption never
/// costs much more.
const SAVE_INTERVAL: Duration = Duration::from_secs(20);

/// The checkpoints of a run: those of its last two generations, and one in the middle of a long one.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// Name of the model that the checkpoints belong to.
    model: String,
    /// Epochs of the last checkpoint after a generation.
    generation: u32,
    saved_at: Instant,
}

impl Checkpoints {
    pub(crate) fn new(folder: &Path, model: String) -> Checkpoints {
        Checkpoints { folder: folder.to_owned(), model, generation: 0, saved_at: Instant::now() }
    }

    /// The latest save in the generation after `epoch` epochs, as (epochs, members); none
    /// at the start of a run.
    ///
    /// # Errors
    /// When the checkpoint of `epoch` is needed and cannot be read.
    pub(crate) fn restore(&mut self, epoch: u32, members: u32) -> anyhow::Result<Option<(u32, Rows)>> {
        self.generation = epoch;
        // As good as training up to it again: training is deterministic.
        match self.load_mid_generation(members) {
            Some(saved) => Ok(Some(saved)),
            None if epoch == 0 => Ok(None),
            None => Ok(Some((epoch, self.load(epoch, members)?))),
        }
    }

    /// Saves the members as they are after a generation, and deletes checkpoints that are no longer needed.
    pub(crate) fn save(&mut self, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        self.write(&self.path(epoch), epoch, epoch, rows)?;
        self.delete_all_but(&[self.generation, epoch])?;
        self.generation = epoch;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Whether the last save is so old that the next is due before the generation ends.
    pub(crate) fn is_due(&self) -> bool {
        self.saved_at.elapsed() > SAVE_INTERVAL
    }

    /// Saves the members as they are after `epoch`, in the middle of a generation.
    pub(crate) fn save_mid_generation(&mut self, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        self.write(&self.folder.join(MID_GENERATION), self.generation, epoch, rows)?;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// What [`Checkpoints::save_mid_generation`] saved in this generation, if it did.
    fn load_mid_generation(&self, members: u32) -> Option<(u32, Rows)> {
        let (epoch, generation, rows) = self.read(&self.folder.join(MID_GENERATION), members).ok()?;
        (generation == self.generation && epoch > generation).then_some((epoch, rows))
    }

    /// Reads what [`Checkpoints::save`] saved.
    fn load(&self, epoch: u32, members: u32) -> anyhow::Result<Rows> {
        let (saved, _, rows) = self.read(&self.path(epoch), members)?;
        ensure!(saved == epoch, "the checkpoint of epoch {epoch} holds epoch {saved}");
        Ok(rows)
    }

    fn path(&self, epoch: u32) -> PathBuf {
        self.folder.join(format!("checkpoint-{epoch:06}.safetensors"))
    }

    fn write(&self, path: &Path, generation: u32, epoch: u32, rows: &Rows) -> anyhow::Result<()> {
        let rows = rows.map(|tensor| tensor.to_device(Device::Cpu));
        let bytes = rows.named().map(|(_, tensor)| {
            let mut bytes = vec![0; tensor.numel() * size_of::<f32>()];
            tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
            bytes
        });
        let views = rows.named().into_iter().zip(&bytes).map(|((name, tensor), bytes)| {
            let size = tensor.size().into_iter().map(|side| side as usize).collect();
            TensorView::new(Dtype::F32, size, bytes).map(|view| (name, view))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("model".to_owned(), self.model.clone()),
            ("epoch".to_owned(), epoch.to_string()),
            ("generation".to_owned(), generation.to_string()),
        ]);
        let file = safetensors::serialize(views, Some(metadata))?;
        replace_file(path, &file).with_context(|| {
            format!("cannot save the checkpoint of epoch {epoch}; the run can resume from the previous one")
        })
    }

    /// Epoch, generation and members of a checkpoint.
    fn read(&self, path: &Path, members: u32) -> anyhow::Result<(u32, u32, Rows)> {
        let read = || -> anyhow::Result<(u32, u32, Rows)> {
            let bytes = fs::read(path)?;
            let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
            let metadata = metadata.metadata().clone().unwrap_or_default();
            let says = |key: &str| metadata.get(key).map_or("", String::as_str);
            let (format, model) = (says("format"), says("model"));
            ensure!(
                (format, model) == (FORMAT, &self.model),
                "it holds {format:?} of {model:?}, not of {:?}",
                self.model
            );
            let file = SafeTensors::deserialize(&bytes)?;
            let tensor = |name: &str| -> anyhow::Result<Tensor> {
                let view = file.tensor(name)?;
                let (dtype, shape) = (view.dtype(), view.shape());
                ensure!(
                    shape.len() == 2 && shape[0] == members as usize && dtype == Dtype::F32,
                    "{name} is {dtype:?} {shape:?}, not a row for each member"
                );
                Ok(Tensor::from_data_size(view.data(), &[shape[0] as i64, shape[1] as i64], Kind::Float))
            };
            Ok((says("epoch").parse()?, says("generation").parse()?, Rows::by_name(tensor)?))
        };
        read().with_context(|| format!("cannot load the checkpoint {}", path.display()))
    }

    /// Deletes all checkpoints except those after these generations.
    fn delete_all_but(&self, epochs: &[u32]) -> anyhow::Result<()> {
        let entries = fs::read_dir(&self.folder)
            .with_context(|| format!("cannot list the run folder {}", self.folder.display()))?;
        for entry in entries {
            let name = entry?.file_name();
            if name == MID_GENERATION || epoch_of(&name).is_some_and(|epoch| !epochs.contains(&epoch)) {
                let path = self.folder.join(name);
                fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// The epoch in the name of a checkpoint after a generation.
fn epoch_of(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()
}

/// Replaces or creates a file, with a plain error message when the disk is full.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
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

    /// Epochs of the existing checkpoints, ascending.
    fn epochs(checkpoints: &Checkpoints) -> Vec<u32> {
        let names = fs::read_dir(&checkpoints.folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut epochs: Vec<u32> = names.filter_map(|name| epoch_of(&name)).collect();
        epochs.sort_unstable();
        epochs
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
        let saved = rows(3);
        checkpoints.save(3, &rows(3)).unwrap();
        checkpoints.save(6, &saved).unwrap();
        assert_eq!(epochs(&checkpoints), [3, 6]);
        let loaded = checkpoints.load(6, 3).unwrap();
        assert_eq!(loaded.parameters, saved.parameters);
        assert_eq!(loaded.momentum, saved.momentum);
        assert_eq!(loaded.statistics, saved.statistics);
        checkpoints.save(1_000_000, &saved).unwrap();
        assert_eq!(epochs(&checkpoints), [6, 1_000_000], "the last two are kept");
        checkpoints.delete_all_but(&[6]).unwrap();
        assert_eq!(epochs(&checkpoints), [6]);
    }

    #[test]
    fn a_save_before_the_end_of_a_generation_belongs_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
        assert!(checkpoints.load_mid_generation(2).is_none());
        checkpoints.save(3, &rows(2)).unwrap();
        checkpoints.save_mid_generation(5, &rows(2)).unwrap();
        assert_eq!(checkpoints.restore(3, 2).unwrap().unwrap().0, 5);
        assert_eq!(epochs(&checkpoints), [3]);
        checkpoints.generation = 6;
        assert!(checkpoints.load_mid_generation(2).is_none());
        checkpoints.generation = 3;
        checkpoints.save(6, &rows(2)).unwrap();
        assert_eq!(checkpoints.restore(3, 2).unwrap().unwrap().0, 3, "the next generation's end deletes it");
    }

    #[test]
    fn another_runs_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path(), "tiny".to_owned());
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
