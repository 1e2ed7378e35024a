//! Everything of CUDA, and members trained on a GPU.
//!
//! None of it has run on a GPU yet.

pub(crate) mod cuda;
mod eager;
mod feed;
mod graphs;
mod prefetch;
pub(crate) mod shim;
mod stream;

use pba_search::Strategy;

use crate::members::MakeMembers;

/// What the strategies are on a GPU, `auto` first: `stacked`, until the benchmark has been run on one.
pub(crate) const STRATEGIES: [(Strategy, MakeMembers); 3] = [
    (Strategy::Stacked, |blueprint| Box::new(eager::Eager::new(blueprint.one_net()))),
    (Strategy::Sequential, |blueprint| Box::new(eager::Eager::new(blueprint.one_net_each()))),
    (Strategy::Graphs, |blueprint| Box::new(graphs::Graphed::new(blueprint.one_net_each()))),
];
