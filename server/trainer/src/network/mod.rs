//! Networks: their layers, their numbers, and the step of SGD that moves these.

pub(crate) mod layers;
pub(crate) mod model;
pub(crate) mod net;
pub(crate) mod optimizer;
#[cfg(test)]
pub(crate) mod plain;
pub(crate) mod rows;
pub(crate) mod shake;
