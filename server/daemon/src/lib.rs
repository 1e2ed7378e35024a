//! The PBA server: streams augmented epochs to training jobs over Arrow IPC, and hosts the jobs that
//! learn what to stream.
//!
//! The binary is `pba` ([`cli`]). `http` is a thin shell: it checks requests, runs the CPU work on a
//! fixed pool and moves finished batches (`stream`). What batches hold is decided by `pba-augment`,
//! which knows nothing of any of this.

mod access;
mod apart;
mod app;
mod audit;
mod background;
mod boundary;
mod catalog;
pub mod cli;
mod config;
mod data_lock;
mod date;
mod draw;
mod error;
mod format;
mod health;
mod hosts;
mod http;
mod jobs;
mod log;
mod metrics;
mod pace;
mod rates;
mod readiness;
mod server;
mod shutdown;
pub mod stream;
mod sync;
mod tls;
mod trace;
pub mod untrusted;
mod version;
mod watched;
