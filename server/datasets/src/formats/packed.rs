//! Packed splits, which are copied into the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pba_types::SplitName;

use crate::error::DatasetError;
use crate::formats::files;
use crate::formats::format::{Format, Found, SingleFile};

pub(crate) const FORMAT: Format = Format {
    name: "packed",
    looked_for: "packed splits (train.arrow, val.arrow, test.arrow)",
    file: Some(SingleFile {
        magic: b"ARROW1",
        extension: "arrow",
        open: |path| Found::Packed(BTreeMap::from([(files::split_of_one(path), path.to_owned())])),
    }),
    find,
};

fn find(root: &Path) -> Result<Option<Found>, DatasetError> {
    let listing = files::list(root)?;
    let named = SplitName::ALL.map(|name| (name, root.join(format!("{name}.arrow"))));
    let found: BTreeMap<SplitName, PathBuf> =
        named.into_iter().filter(|(_, file)| listing.contains(file)).collect();
    Ok(Some(found).filter(|found| !found.is_empty()).map(Found::Packed))
}
