//! Client of the PBA server.
//!
//! ```no_run
//! # async fn example() -> Result<(), pba_client::ClientError> {
//! use pba_client::{Client, EpochRequest};
//!
//! let client = Client::new(["http://127.0.0.1:8080"])?;
//! let request = EpochRequest { schedule: Some("cifar10-pba".to_owned()), ..EpochRequest::default() };
//! let mut batches = client.epoch("shapes", 199, request).await?;
//! while let Some(batch) = batches.next().await? {
//!     println!("{} images", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod client;
mod decoding;
mod epoch;
mod error;
mod events;
mod messages;
mod options;
mod recipes;
mod replica;
mod replicas;
#[cfg(target_os = "linux")]
mod shared_memory;

pub use address::segment;
pub use client::Client;
pub use decoding::decode_answer;
pub use epoch::{EpochStream, Stats};
pub use error::ClientError;
pub use events::{Event, Events, RECONNECTING};
pub use options::ClientOptions;
pub use pba_wire::{DEFAULT_URL, EpochRequest, Problem, Query, SplitName};
