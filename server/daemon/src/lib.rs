//! The PBA server: streams augmented epochs to training jobs over Arrow IPC.
//!
//! The binary is `pba` ([`cli`]). [`http`] is a thin shell: it checks requests ([`epoch`]), runs
//! the CPU work on a fixed pool ([`pool`]) and moves finished batches ([`body`]). What batches
//! hold is decided by `pba-augment`, which knows nothing of any of this.

pub mod app;
pub mod batches;
pub mod body;
pub mod buffers;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod decoded_cache;
pub mod encode;
pub mod epoch;
pub mod error;
pub mod http;
pub mod memory;
pub mod memory_stream;
pub mod metrics;
pub mod opening;
pub mod plot;
pub mod pool;
pub mod registry;
pub mod samples;
pub mod searches;
pub mod server;
pub mod sheet;
