//! What the parts of the engine that threads share are made of.
//!
//! The files that take their locks and atomics from here name none of std or tokio themselves: `tests/models`
//! compiles the same files over loom's types, and runs them in every order in which their threads can meet.

pub(crate) use std::hash::RandomState;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

pub(crate) use crossbeam::utils::Backoff;
pub(crate) use tokio::sync::{Notify, oneshot};

use std::sync::PoisonError;

/// Locks what no panic can leave half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
