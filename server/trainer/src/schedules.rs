//! The schedules that models train with.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use pba_augment::Policies;
use pba_schedules::{Ablation, Schedule, formats, library};
use pba_search::protocol::files;

/// The schedule with a name: the one that the server put in the run folder, or else a published one, or
/// else the one in the file of that name.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn named(name: &str, dir: Option<&Path>) -> anyhow::Result<Arc<Schedule>> {
    let saved = dir.and_then(|dir| files::schedules(dir, name).into_iter().find(|path| path.exists()));
    if saved.is_none()
        && let Some(published) = library::named(name)?
    {
        return Ok(Arc::new(published));
    }
    let path = saved.unwrap_or_else(|| name.into());
    let cannot = || format!("cannot read the schedule {}", path.display());
    let text = fs::read_to_string(&path).with_context(cannot)?;
    Ok(Arc::new(formats::read(&text, None, None).with_context(cannot)?))
}

/// What the images of an epoch (0-based, of `epochs`) draw their policy from.
///
/// # Errors
/// When `epoch` is not below `epochs`.
pub(crate) fn policies(
    schedule: &Arc<Schedule>,
    ablation: Ablation,
    epoch: u32,
    epochs: u32,
    seed: u64,
) -> anyhow::Result<Policies> {
    Ok(match schedule.ablated(ablation, epoch, epochs, seed)? {
        Some(policy) => Policies::One(policy.clone()),
        None => Policies::AnyEpochOf(Arc::clone(schedule)),
    })
}
