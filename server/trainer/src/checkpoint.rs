//! A checkpoint: one safetensors file that holds all members after an epoch.
//!
//! Its head holds a checksum of the whole file. One that is damaged, or that the disk cannot read, is told of and
//! passed over: the run resumes at the one before, or begins anew, and ends with the same result.
//!
//! `checkpoints.rs` says when one is written, and which are kept.

use std::fs;
use std::hash::Hasher;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use pba_search::TrainingSpec;
use pba_search::protocol::files;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use twox_hash::XxHash3_64;

use crate::disk::plainly;
use crate::network::rows::Rows;
use crate::torch::Frozen;

const FORMAT: &str = "pba-checkpoint/2";
/// What older versions wrote, without a checksum.
pub(crate) const FORMAT_WITHOUT_CHECKSUM: &str = "pba-checkpoint/1";
/// The key of the checksum in the head: XXH3 with 64 bits of the whole file, as hexadecimal digits, where these
/// digits are zeros.
const CHECKSUM: &str = "xxh3";
const NO_CHECKSUM: &str = "0000000000000000";
/// The head ends at a multiple of so many bytes, so that the numbers after it are aligned.
pub(crate) const HEAD_ALIGNMENT: usize = 8;
/// What older versions saved in the middle of a generation.
pub(crate) const MID_GENERATION: &str = "between.safetensors";
/// Longest head of a file that is read; those of ours have a few hundred bytes.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Longest checkpoint that is read, far beyond what a machine's memory holds of models.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 40;

/// What the members are after an epoch.
pub(crate) struct Snapshot {
    /// Epochs of the generation whose policies they train with: what the journal must tell of.
    pub(crate) generation: u32,
    /// Epochs that they have trained.
    pub(crate) epoch: u32,
    pub(crate) rows: Rows,
}

/// A checkpoint in a folder, by what its head says.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    /// As in [`Snapshot`].
    pub(crate) generation: u32,
    pub(crate) epoch: u32,
}

/// The run that checkpoints belong to, in words that stay the same when specs get more fields.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Name of the model.
    pub(crate) model: String,
    /// What tells its training from others of the model.
    pub(crate) training: String,
    /// What tells its run from others of that training; nothing where there is no journal.
    pub(crate) run: String,
}

impl Owner {
    /// The owner of what a run trains in this way, wherever that is.
    pub(crate) fn of(training: &TrainingSpec, run: &str) -> Owner {
        let TrainingSpec { model, dataset, epochs, batch_size, seed, split_seed, .. } = training;
        let training = format!(
            "{epochs} epochs on {dataset} in batches of {batch_size}, seed {seed}, split seed {split_seed}"
        );
        Owner { model: model.to_string(), training, run: run.to_owned() }
    }
}

impl Owner {
    /// Writes the members of a run with this owner to a folder, durably.
    ///
    /// # Errors
    /// When the disk does not take them. Then what was there is.
    pub(crate) fn write(&self, folder: &Path, snapshot: &Snapshot) -> anyhow::Result<()> {
        let Snapshot { generation, epoch, rows } = snapshot;
        let rows = rows.map(|tensor| tensor.to_device(Device::Cpu));
        let frozen = rows.named().map(|(name, tensor)| (name, Frozen::new(tensor)));
        let Owner { model, training, run } = self;
        let mut head = json!({ "__metadata__": {
            "format": FORMAT, "model": model, "training": training, "run": run, "epoch": epoch.to_string(),
            "generation": generation.to_string(), CHECKSUM: NO_CHECKSUM,
        }});
        let mut end = 0;
        for (name, tensor) in &frozen {
            let offsets = [end, end + tensor.bytes().len()];
            head[name] = json!({ "dtype": "F32", "shape": tensor.size(), "data_offsets": offsets });
            end = offsets[1];
        }
        let mut head = head.to_string();
        head.push_str(&" ".repeat(head.len().next_multiple_of(HEAD_ALIGNMENT) - head.len()));
        let length = (head.len() as u64).to_le_bytes();
        let digits = digits_in(&head, NO_CHECKSUM).context("the head holds no checksum")?;
        let mut hasher = XxHash3_64::new();
        [&length[..], head.as_bytes()].into_iter().for_each(|part| hasher.write(part));
        frozen.iter().for_each(|(_, tensor)| hasher.write(tensor.bytes()));
        head.replace_range(digits, &format!("{:016x}", hasher.finish()));
        // The members are of use with the events that led to them only.
        match pba_files::open(&folder.join(files::JOURNAL)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            journal => journal.and_then(|journal| journal.sync_data()).context("cannot sync the journal")?,
        }
        // The numbers go to the disk from where they are: a copy would take longer than the writing.
        let written = pba_files::replace_with(&folder.join(name_of(*epoch)), |mut file| {
            file.write_all(&length)?;
            file.write_all(head.as_bytes())?;
            frozen.iter().try_for_each(|(_, tensor)| file.write_all(tensor.bytes()))
        });
        Ok(written.map_err(plainly)?)
    }

    /// The members in the bytes of a checkpoint that is whole.
    fn rows(&self, bytes: &[u8], members: u32) -> anyhow::Result<Rows> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let Owner { model: own, training, run } = self;
        let (format, model) = (says(&metadata, "format"), says(&metadata, "model"));
        ensure!(
            [FORMAT, FORMAT_WITHOUT_CHECKSUM].contains(&format) && model == own,
            "it holds {format:?} of {model:?}, not {FORMAT:?} of {own:?}"
        );
        // Those of older versions do not say.
        let there = Some(says(&metadata, "training")).filter(|there| !there.is_empty());
        ensure!(
            there.is_none_or(|there| there == training),
            "it is of another run: of {there:?}, not of {training:?}"
        );
        let there = says(&metadata, "run");
        ensure!(
            [there, run].contains(&"") || there == run,
            "it is of another run, whose journal begins otherwise; without that file this one begins anew"
        );
        let file = SafeTensors::deserialize(bytes)?;
        let tensor = |name: &str| -> anyhow::Result<Tensor> {
            let view = file.tensor(name)?;
            let (dtype, shape) = (view.dtype(), view.shape());
            ensure!(
                shape.len() == 2 && shape[0] == members as usize && dtype == Dtype::F32,
                "{name} is {dtype:?} {shape:?}, not a row for each member"
            );
            Ok(Tensor::from_data_size(view.data(), &[shape[0] as i64, shape[1] as i64], Kind::Float))
        };
        Rows::by_name(tensor)
    }
}

impl Found {
    /// The members in it; none, after a warning, when it is damaged or the disk cannot read it.
    ///
    /// # Errors
    /// When it cannot be read for another reason, or is of another run.
    pub(crate) fn members(&self, owner: &Owner, members: u32) -> anyhow::Result<Option<Rows>> {
        let cannot = || format!("cannot load the checkpoint {}", self.path.display());
        let Some(bytes) = self.load()? else { return Ok(None) };
        owner.rows(&bytes, members).with_context(cannot).map(Some)
    }

    /// Its bytes; none, after a warning, when it is damaged or the disk cannot read it.
    ///
    /// # Errors
    /// When it cannot be read for another reason: it may be whole.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let whole = || -> anyhow::Result<Vec<u8>> {
            let bytes = pba_files::read(&self.path, CHECKPOINT_BYTES_MAX)?;
            check(&bytes)?;
            Ok(bytes)
        };
        match whole() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_of_the_system(&error) => Err(error).with_context(|| cannot_read(&self.path)),
            Err(error) => {
                let path = self.path.display();
                eprintln!("warning: {path} is damaged: {error:#}; the run goes on from the one before it");
                Ok(None)
            }
        }
    }
}

/// Checks that a checkpoint is as it was written, if it has a checksum.
fn check(bytes: &[u8]) -> anyhow::Result<()> {
    let (length, metadata) = SafeTensors::read_metadata(bytes)?;
    let told = says(&metadata, CHECKSUM);
    if says(&metadata, "format") == FORMAT_WITHOUT_CHECKSUM && told.is_empty() {
        return Ok(());
    }
    let start = size_of::<u64>();
    let head = std::str::from_utf8(&bytes[start..start + length])?;
    let Range { start: from, end: to } = digits_in(head, told).context("it has no checksum")?;
    let mut hasher = XxHash3_64::new();
    hasher.write(&bytes[..start + from]);
    hasher.write(NO_CHECKSUM.as_bytes());
    hasher.write(&bytes[start + to..]);
    let found = format!("{:016x}", hasher.finish());
    ensure!(told == found, "its checksum is {found}, not {told}");
    Ok(())
}

/// Where the digits of the checksum stand in a head, which says that they are `digits`.
fn digits_in(head: &str, digits: &str) -> Option<Range<usize>> {
    let key = format!("\"{CHECKSUM}\":\"{digits}\"");
    let end = head.find(&key)? + key.len() - 1;
    (digits.len() == NO_CHECKSUM.len()).then(|| end - digits.len()..end)
}

/// The name of the checkpoint of an epoch.
pub(crate) fn name_of(epoch: u32) -> String {
    format!("checkpoint-{epoch:06}.safetensors")
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read the checkpoint {}", path.display())
}

/// The files in a folder that have the names of checkpoints.
pub(crate) fn paths(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list the job's folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = name.starts_with("checkpoint-") && name.ends_with(".safetensors");
        if is_ours || name == MID_GENERATION {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Deletes the checkpoints in a folder but those of some epochs.
///
/// # Errors
/// When one cannot be deleted.
pub(crate) fn delete_others(folder: &Path, kept: [u32; 2]) -> anyhow::Result<()> {
    let kept = kept.map(name_of);
    for path in paths(folder)? {
        if !kept.iter().any(|name| path.ends_with(name)) {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
    }
    Ok(())
}

/// The checkpoints in a folder, by epoch, ascending. A file that is none is told of and left out: the run
/// resumes from the one before.
///
/// # Errors
/// When the folder cannot be listed, or a file cannot be read.
pub(crate) fn found(folder: &Path) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for path in paths(folder)? {
        match head(&path) {
            Ok((generation, epoch)) => all.push(Found { path, generation, epoch }),
            // What is in it is not known: going on without it could lose what is.
            Err(error) if is_of_the_system(&error) => return Err(error).with_context(|| cannot_read(&path)),
            Err(error) => eprintln!("warning: {} is no checkpoint: {error:#}", path.display()),
        }
    }
    all.sort_by_key(|found| found.epoch);
    Ok(all)
}

/// Whether a file could not be read for a reason that may pass, as opposed to holding something else, or lying
/// where the disk cannot read.
fn is_of_the_system(error: &anyhow::Error) -> bool {
    let lost = [libc::EIO, libc::EBADMSG, libc::EUCLEAN];
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| {
        let is_no_checkpoint = [ErrorKind::UnexpectedEof, ErrorKind::InvalidInput, ErrorKind::InvalidData];
        !is_no_checkpoint.contains(&error.kind())
            && !error.raw_os_error().is_some_and(|code| lost.contains(&code))
    })
}

/// Generation and epoch of a checkpoint.
fn head(path: &Path) -> anyhow::Result<(u32, u32)> {
    let mut file = pba_files::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let length = u64::from_le_bytes(head);
    ensure!(length <= HEAD_BYTES_MAX, "its head has {length} bytes");
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let metadata: Metadata = serde_json::from_slice(&text)?;
    let whole = head.len() as u64 + length + metadata.data_len() as u64;
    ensure!(bytes == whole, "it has {bytes} bytes, not {whole}");
    Ok((says(&metadata, "generation").parse()?, says(&metadata, "epoch").parse()?))
}

fn says<'a>(metadata: &'a Metadata, key: &str) -> &'a str {
    metadata.metadata().as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}
