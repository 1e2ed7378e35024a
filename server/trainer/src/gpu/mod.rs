//! Everything of CUDA, and members trained on a GPU.
//!
//! None of it has run on a GPU yet.

pub(crate) mod cuda;
mod eager;
mod graphs;
mod prefetch;
pub(crate) mod shim;
mod stream;

use pba_search::Strategy;

use crate::members::Way;

/// What the strategies are on a GPU; the first is what `auto` means, until the benchmark has been run
/// on one.
pub(crate) const WAYS: &[Way] = &[
    Way { strategy: Strategy::Stacked, is_stacked: true, train: || Box::new(eager::Eager) },
    Way { strategy: Strategy::Sequential, is_stacked: false, train: || Box::new(eager::Eager) },
    Way { strategy: Strategy::Graphs, is_stacked: false, train: || Box::<graphs::Graphs>::default() },
];
