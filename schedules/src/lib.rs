//! Augmentation policies and schedules: *what* is applied to an image, and *when* in a training run.
//!
//! A [`Policy`] says which [`Op`]s may be applied, how probably and how strongly; it is of one of
//! several families, of which the paper's are the [`Pairs`]. A [`Schedule`] is a
//! policy per epoch, as Population Based Augmentation (Ho et al., ICML 2019, arXiv 1905.05393)
//! learns it. [`explore`] is the perturbation by which the population search moves through
//! policies.
//!
//! Everything here is a pure function: no I/O, no clock, no threads, and no random number that
//! was not asked for with an address ([`rng`]).
//!
//! ```
//! let schedule = pba_schedules::library::cifar10_pba();
//! assert_eq!((schedule.epochs(), schedule.segments().len()), (200, 17));
//! // Stretched to a run of 1,800 epochs, epoch 900 uses the policy of search epoch 100.
//! assert_eq!(schedule.at(900, 1800)?, schedule.at(100, 200)?);
//! # Ok::<(), pba_schedules::ScheduleError>(())
//! ```

mod diff;
mod error;
mod explore;
pub mod formats;
pub mod library;
mod op;
mod policy;
mod provenance;
mod random;
mod schedule;

pub use diff::{Change, Difference, DifferentEpochs, Levels, diff};
pub use error::ScheduleError;
pub use explore::explore;
pub use op::{MAGNITUDE_MAX, Op, OpOdds, PROBABILITY_MAX};
pub use pba_types::{Digest, rng};
pub use policy::*;
pub use provenance::{Json, PROVENANCE_FIELDS_MAX, Provenance};
pub use random::random_schedule;
pub use schedule::{Ablation, Schedule, Segment};
