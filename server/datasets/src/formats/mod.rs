//! The formats that datasets come in, a file each. A new one is a file that defines a
//! [`Format`](format::Format), and its line in [`ALL`].

pub(crate) mod cifar;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod format;
pub(crate) mod packed;
pub(crate) mod parquet;
mod parquet_pages;
pub(crate) mod shapes;

/// Every format that is found at a path, in the order in which they are looked for.
pub(crate) const ALL: [&format::Format; 4] =
    [&packed::FORMAT, &cifar::FORMAT, &parquet::FORMAT, &folder::FORMAT];
