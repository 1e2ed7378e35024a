//! The atomics of what threads and a signal's handler share. `tests/models` compiles the files that use them over
//! loom's, and runs them in every order.

pub(crate) use std::sync::atomic::{AtomicUsize, fence};
