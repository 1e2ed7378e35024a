//! The datasets that can be streamed, and the schedules to augment them with.

pub(crate) mod datasets;
mod description;
mod entry;
pub(crate) mod mending;
pub(crate) mod schedules;
pub(crate) mod scrub;
pub(crate) mod served;
pub(crate) mod stored;
mod upkeep;
