//! What can be streamed: datasets, and the schedules to augment them by.

pub(crate) mod datasets;
pub(crate) mod schedules;
