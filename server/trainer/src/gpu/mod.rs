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

/// What the strategies are on a GPU; `auto` means the first, or the second where the binary was built without
/// CUDA's headers. Grouped convolutions have fallen to slow kernels in some versions of cuDNN, so `stacked` waits
/// until `benches/gpu/run.sh` has been run on a GPU.
pub(crate) const WAYS: &[Way] = &[
    Way {
        strategy: Strategy::Graphs,
        is_stacked: false,
        train: |streams| Box::new(graphs::Graphs::new(streams)),
    },
    Way { strategy: Strategy::Sequential, is_stacked: false, train: |_| Box::new(eager::Eager) },
    Way { strategy: Strategy::Stacked, is_stacked: true, train: |_| Box::new(eager::Eager) },
];
