//! Members trained on a CPU.

pub(crate) mod cores;
mod members;

use pba_search::Strategy;

use crate::members::MakeMembers;

/// What the strategies are on a CPU, `auto` first.
pub(crate) const STRATEGIES: [(Strategy, MakeMembers); 2] = [
    (Strategy::Sequential, |blueprint| Box::new(members::OnCores::new(blueprint.one_net_each()))),
    (Strategy::Stacked, |blueprint| Box::new(members::OnCores::new(blueprint.one_net()))),
];
