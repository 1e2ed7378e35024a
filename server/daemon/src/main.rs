//! The `pba` binary.

fn main() {}
