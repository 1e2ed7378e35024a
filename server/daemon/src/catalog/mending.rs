//! What is wrong with a dataset that cannot be opened or is damaged, and what takes its place.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pba_datasets::{Dataset, DatasetError, Fault, packed};

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

/// Whether an error is the fault of this machine or of the writer, and what failed may work another time.
pub(super) fn is_ours(error: &DatasetError) -> bool {
    matches!(error, DatasetError::NotPacked { .. })
        || matches!(error.fault(), Some(Fault::DiskFull | Fault::Machine))
}

/// The cause of a dataset or split that could not be read.
pub(crate) fn cause(error: &DatasetError) -> Cause {
    match (error, error.fault()) {
        (DatasetError::Damaged { .. }, _) => Cause::Damaged,
        (DatasetError::NotPacked { .. }, _) => Cause::NotPacked,
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

/// A dataset with the splits of a mended one, but for those that hold something else or cannot be mended.
pub(super) fn better(before: &Dataset, mended: Dataset) -> Dataset {
    let mut dataset = mended;
    for (name, state) in &before.splits {
        let Ok(split) = state else { continue };
        match dataset.split(*name) {
            Some(Ok(mended)) if mended.digest() == split.digest() => continue,
            Some(Err(error)) => {
                tracing::error!(dataset = before.name, split = %name, %error, "the split cannot be mended yet");
            }
            _ => tracing::error!(
                dataset = before.name,
                split = %name,
                "the split is damaged, and its source holds something else by now; restart the server to serve that"
            ),
        }
        dataset.splits.insert(*name, Ok(Arc::clone(split)));
    }
    dataset
}

/// Bytes of the packed files of a dataset.
pub(super) fn bytes(dataset: &Dataset) -> i64 {
    dataset.splits.values().flatten().map(|split| split.bytes() as i64).sum()
}
