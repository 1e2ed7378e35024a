//! What a trainer does for the server, one job at a time.

pub(crate) mod record;
pub(crate) mod searches;
pub(crate) mod supervisor;
pub(crate) mod trainer;
