//! Dataset readers, and the packed on-disk format.
