//! What a format is to the import: how it is found, and how its rows are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pba_types::SplitName;

use crate::cache::Key;
use crate::error::DatasetError;
use crate::packed::spec::PackSpec;
use crate::packed::target::{Stop, Target};

/// A format that datasets come in.
pub(crate) struct Format {
    /// Its name in answers and logs.
    pub(crate) name: &'static str,
    /// What is looked for, for the message when nothing is found.
    pub(crate) looked_for: &'static str,
    /// How a single file is one, if it can be.
    pub(crate) file: Option<SingleFile>,
    /// Finds a dataset in a folder, without reading it.
    pub(crate) find: fn(&Path) -> Result<Option<Found>, DatasetError>,
}

/// A format that a single file may have.
pub(crate) struct SingleFile {
    /// How such a file begins.
    pub(crate) magic: &'static [u8],
    /// Its extension, without the dot.
    pub(crate) extension: &'static str,
    /// The dataset that it is.
    pub(crate) open: fn(&Path) -> Found,
}

/// A dataset that was found and has not been read.
pub(crate) enum Found {
    /// Packed files, which are copied into the cache.
    Packed(BTreeMap<SplitName, PathBuf>),
    /// Anything else, which is packed into the cache.
    Source(Box<dyn Source>),
}

/// What splits are imported from.
pub(crate) trait Source {
    /// The splits, each with the file or folder that messages name.
    fn splits(&self) -> BTreeMap<SplitName, PathBuf>;

    /// What tells this state of the source from another.
    fn key(&self) -> Result<Key, DatasetError>;

    /// What a split holds. Read as far as that needs.
    fn spec(&self, split: SplitName) -> Result<PackSpec, DatasetError>;

    /// Gives the rows of a split to `target`, all and in order. Called a second time when the images
    /// turn out to differ in size.
    fn rows(&self, split: SplitName, target: &mut Target<'_>) -> Result<(), Stop>;
}
