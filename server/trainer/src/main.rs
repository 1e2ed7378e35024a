//! Trains populations: the only code that links libtorch.
fn main() {}
