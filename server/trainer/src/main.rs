//! Trains populations: the only code that links libtorch.
mod layers;
mod models;
mod native;
mod net;
mod optimizer;
fn main() {}
