//! Members trained on a CPU.

pub(crate) mod cores;
mod on_cores;

use pba_search::Strategy;

use crate::members::Way;

/// What the strategies are on a CPU; the first is what `auto` means.
pub(crate) const WAYS: &[Way] = &[
    Way { strategy: Strategy::Sequential, is_stacked: false, train: || Box::new(on_cores::OnCores) },
    Way { strategy: Strategy::Stacked, is_stacked: true, train: || Box::new(on_cores::OnCores) },
];
