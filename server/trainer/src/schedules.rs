//! The schedules that models train with.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use pba_augment::Policies;
use pba_schedules::{Ablation, Schedule, formats, library};
use pba_search::protocol::files;

/// Longest file that is read.
const BYTES_MAX: u64 = 1 << 30;

/// The schedule with a name: the one that the server put in the job's folder, or else a published one, or
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
    let text = pba_files::read_text(&path, BYTES_MAX).with_context(cannot)?;
    let schedule = formats::read(&text, None, None, None).with_context(cannot)?;
    if let Some(digest) = dir.and_then(|dir| digest_in(dir, name).transpose()).transpose()? {
        let found = schedule.digest().to_string();
        ensure!(
            found == digest,
            "{} is damaged: its digest is {found}, but this run began with {digest}",
            path.display()
        );
    }
    Ok(Arc::new(schedule))
}

/// The digest that a schedule had when the server put it in a job's folder; older versions did not say.
fn digest_in(dir: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let path = dir.join(files::SCHEDULE_DIGESTS);
    let cannot = || format!("cannot read {}", path.display());
    let text = match pba_files::read(&path, BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(cannot)?,
    };
    let mut digests: BTreeMap<String, String> = serde_json::from_slice(&text).with_context(cannot)?;
    digests.remove(name).map(Some).with_context(|| format!("{} does not name {name:?}", path.display()))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_schedule_that_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let schedule = &library::all()[0];
        let [path, _] = files::schedules(folder.path(), schedule.name());
        fs::create_dir(path.parent().unwrap()).unwrap();
        let text = formats::json::write(schedule);
        let named = || named(schedule.name(), Some(folder.path()));
        // Without a digest there is no telling.
        let number = text.rfind("[[").unwrap() + 2;
        let damaged = format!("{}1{}", &text[..number], &text[number + 1..]);
        assert_ne!(damaged, text);
        fs::write(&path, &damaged).unwrap();
        assert_ne!(named().unwrap().digest(), schedule.digest());
        let digests = folder.path().join(files::SCHEDULE_DIGESTS);
        fs::write(&digests, format!("{{\"{}\": \"{}\"}}", schedule.name(), schedule.digest())).unwrap();
        let error = named().unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
        fs::write(&path, &text).unwrap();
        assert_eq!(named().unwrap().digest(), schedule.digest());
        fs::write(&digests, "{}").unwrap();
        assert!(named().is_err());
    }
}
