//! What is wrong with a dataset that cannot be opened or is damaged, and what takes its place.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pba_datasets::{Dataset, DatasetError, Fault, packed};
use pba_types::SplitName;

use crate::error::Cause;

/// Should a reader panic on damaged data, the other datasets are still served.
pub(super) fn guarded(
    name: &str,
    open: impl FnOnce() -> Result<Dataset, DatasetError>,
) -> Result<Dataset, DatasetError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let reason = "the import panicked; the log says where".to_owned();
        Err(DatasetError::Unreadable { place: name.to_owned(), reason })
    })
}

/// Whether an error is the fault of this machine or of the writer, and what failed may work another time: a disk that is
/// not mounted yet is one of this machine.
pub(super) fn is_ours(error: &DatasetError) -> bool {
    use DatasetError::{BeingPacked, NotPacked, Nothing};
    matches!(error, NotPacked { .. } | BeingPacked | Nothing { .. })
        || matches!(error.fault(), Some(Fault::DiskFull | Fault::Machine))
}

/// The cause of a dataset or split that could not be read.
pub(crate) fn cause(error: &DatasetError) -> Cause {
    match (error, error.fault()) {
        (DatasetError::Damaged { .. }, _) => Cause::Damaged,
        (DatasetError::NotPacked { .. }, _) => Cause::NotPacked,
        (DatasetError::BeingPacked, _) => Cause::Importing,
        (_, Some(Fault::DiskFull)) => Cause::DiskFull,
        (_, Some(Fault::Machine)) => Cause::Internal,
        _ => Cause::BrokenDataset,
    }
}

/// A dataset with its damaged splits opened again, if what is in their place now is whole and the same.
pub(super) fn restored(dataset: &Dataset) -> Option<Dataset> {
    let mut dataset = dataset.clone();
    for state in dataset.splits.values_mut() {
        let split = match state {
            Ok(split) => split,
            // The writer's.
            Err(DatasetError::NotPacked { .. }) => continue,
            Err(error) if is_ours(error) => return None,
            // Its source is at fault.
            Err(_) => continue,
        };
        if split.damaged_batches() > 0 {
            let again = packed::open(split.path()).ok()?;
            again.check_all(&|_| ControlFlow::Continue(())).ok()?;
            let is_same = again.digest() == split.digest();
            *state = Ok(is_same.then_some(again)?.into());
        }
    }
    Some(dataset)
}

/// Whether all splits that are served are the same in what was found of their source: then its other splits go with them.
/// None if that cannot be told, as one could not be found or read again.
pub(super) fn is_same_source(
    before: &Dataset,
    is_served: &dyn Fn(SplitName) -> bool,
    found: &Dataset,
) -> Option<bool> {
    let mut same = Some(true);
    for (name, state) in before.splits.iter().filter(|(name, _)| is_served(**name)) {
        match (state, found.split(*name)) {
            (Ok(split), Some(Ok(found))) if split.digest() != found.digest() => return Some(false),
            (Ok(_), Some(Ok(_))) => {}
            _ => same = None,
        }
    }
    same
}

/// A dataset as it is served on after it was mended. A split that is served never becomes something else by that, and
/// none comes in that is of another state of the source.
///
/// Nor does one come in that was not there: which splits a writer has is settled when it starts, as nobody has asked for
/// those that came into the source since. A replica follows its writer, which has, and lets them in
/// (`Catalog::look`).
pub(super) fn better(before: &Dataset, is_served: &dyn Fn(SplitName) -> bool, mended: Dataset) -> Dataset {
    let is_same_source = is_same_source(before, is_served, &mended);
    let missing = before.splits.keys().filter(|split| is_served(**split)).find_map(|split| {
        let what = match mended.split(*split) {
            Some(Ok(_)) => return None,
            Some(Err(error)) => format!("cannot be read again: {error}"),
            None => "is not in its source any more".to_owned(),
        };
        Some(format!("it is not known whether it belongs to the {split} split that is served, which {what}"))
    });
    let mut dataset = mended;
    dataset.splits.retain(|name, _| before.splits.contains_key(name));
    for (name, state) in &before.splits {
        let kept = match (state, dataset.split(*name)) {
            (Ok(split), Some(Ok(found))) if is_served(*name) && split.digest() == found.digest() => continue,
            (Ok(split), found) if is_served(*name) => {
                match found {
                    Some(Err(error)) => {
                        tracing::error!(dataset = before.name, split = %name, %error, "the split cannot be mended yet");
                    }
                    _ => tracing::error!(
                        dataset = before.name,
                        split = %name,
                        "the split's source holds something else by now; restart the server to serve that"
                    ),
                }
                Ok(Arc::clone(split))
            }
            _ if is_same_source == Some(true) => continue,
            // It is tried again, but nobody waits for that.
            (Err(DatasetError::BeingPacked), Some(Err(error))) if is_same_source.is_none() => {
                Err(not_packed_for(error))
            }
            (Err(DatasetError::BeingPacked), _) if is_same_source.is_none() => {
                Err(DatasetError::NotPacked { found: missing.clone().unwrap_or_default() })
            }
            (state, _) if is_same_source.is_none() => state.clone(),
            _ => Err(DatasetError::Unreadable {
                place: name.to_string(),
                reason: "its source has changed since the other splits were imported; restart the server to serve what \
                         it is now"
                    .to_owned(),
            }),
        };
        dataset.splits.insert(*name, kept);
    }
    dataset
}

/// What a split that was to be packed is after an attempt that was in vain. It is tried again, but may never be packed.
pub(super) fn not_packed_for(error: &DatasetError) -> DatasetError {
    match error {
        DatasetError::NotPacked { .. } => error.clone(),
        _ => DatasetError::NotPacked { found: error.to_string() },
    }
}

/// Bytes of the packed files of a dataset.
pub(super) fn bytes(dataset: &Dataset) -> i64 {
    dataset.splits.values().flatten().map(|split| split.bytes() as i64).sum()
}
