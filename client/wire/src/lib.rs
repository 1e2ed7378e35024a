//! What client and server agree on: the columns and metadata of a stream, the parameters of a
//! request, the answers in JSON, and the shape of an error.

pub mod epoch;
pub mod evaluations;
pub mod jobs;
pub mod memory;
pub mod problem;
pub mod searches;
pub mod stream;

pub use epoch::{EpochRequest, ParameterError};
pub use pba_types::SplitName;
pub use problem::Problem;

/// The one address that every program defaults to.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";
