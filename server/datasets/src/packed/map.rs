//! Files mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A read-only, shared map of a whole file.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps all of `file`.
    ///
    /// The file must not be truncated or rewritten in place while it is mapped: reading a page
    /// that is gone ends the process. Everything in this crate replaces files by renaming, which
    /// leaves an existing map alone.
    pub(crate) fn of(file: &File) -> io::Result<Map> {
        // SAFETY: the bytes are only ever read, as plain integers, and every offset is checked
        // against the length found here. Packed files are written once, under a temporary name,
        // and replaced by renaming; truncating one in place breaks the contract above.
        #[allow(unsafe_code)]
        unsafe { memmap2::Mmap::map(file) }.map(Map)
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
