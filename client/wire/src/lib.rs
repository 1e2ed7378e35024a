//! What client and server agree on: the columns and metadata of a stream, the parameters of a
//! request, the answers in JSON, and the shape of an error.

pub mod apply;
pub mod audit;
pub mod checksum;
pub mod datasets;
pub mod epoch;
pub mod jobs;
pub mod pages;
pub mod problem;
pub mod query;
pub mod readiness;
pub mod request;
pub mod role;
pub mod schedules;
pub mod shared_memory;
pub mod stream;
pub mod streams;

pub use apply::Apply;
pub use epoch::{EpochRequest, Preview};
pub use pages::{DatasetPage, SchedulePage};
pub use pba_types::SplitName;
pub use problem::Problem;
pub use query::{ParameterError, Query};
pub use readiness::Readiness;
pub use role::Role;

/// The one address that every program defaults to.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";
