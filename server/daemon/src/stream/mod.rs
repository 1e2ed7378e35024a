//! Streams: one epoch from the request to the socket.

pub(crate) mod batches;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod buffers;
pub(crate) mod client;
pub(crate) mod connections;
pub(crate) mod decoded_cache;
pub mod encode;
pub(crate) mod engine;
pub(crate) mod epoch;
pub(crate) mod making;
pub(crate) mod permits;
pub(crate) mod pieces;
pub(crate) mod pool;
pub(crate) mod queue;
mod recipe_digest;
pub(crate) mod resolve;
pub(crate) mod round_robin;
pub(crate) mod samples;
pub(crate) mod shared_memory;
pub(crate) mod shared_memory_stream;
pub(crate) mod slots;
pub(crate) mod turns;
pub(crate) mod work;
pub(crate) mod workspace;
