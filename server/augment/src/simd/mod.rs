//! What is worth vector instructions: a folder for each algorithm, and in it a file for each level.
//!
//! A [`Level`](crate::Level) is chosen once and handed down, never asked for inside a loop. Every
//! level gives the same bytes, which the tests hold by running one body over all of them. A
//! folder's `portable` is plain Rust, too simple to be wrong, and what the others are compared
//! with; it also has the types that they share. Its `mod.rs` chooses by `at_level!`.
//!
//! There are two ways to a level's own code. `per_level!` in `level` compiles one plain body several
//! times, for loops that the compiler makes vectors of. What it cannot see through, such as tables,
//! shuffles and masks, is written by hand in `avx512` and `avx2`.

// Vector instructions: the only unsafe code of this crate. What is only theirs is used nowhere else.
#![allow(unsafe_code)]
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_variables))]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bits;
pub(crate) mod blend;
pub(crate) mod expand;
pub(crate) mod flatten;
pub(crate) mod gather;
pub(crate) mod level;
pub(crate) mod line;
pub(crate) mod lookup;
pub(crate) mod philox;
pub(crate) mod place;
pub(crate) mod resize;
