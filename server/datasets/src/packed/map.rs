//! Files mapped into memory.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps all of `file`, read-only.
///
/// The file must not be truncated or rewritten in place while it is mapped: reading a page
/// that is gone ends the process. Everything in this crate replaces files by renaming, which
/// leaves an existing map alone.
#[allow(unsafe_code)]
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes are only ever read, as plain integers, and every offset is checked
    // against the length found here. Packed files are written once, under a temporary name,
    // and replaced by renaming; truncating one in place breaks the contract above.
    unsafe { Mmap::map(file) }
}
