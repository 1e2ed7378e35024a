//! The population search that learns an augmentation schedule, as a pure function.
//!
//! Population Based Augmentation (Ho et al., ICML 2019, arXiv 1905.05393) trains a population of
//! small networks once. Every few epochs the worst members copy the weights of the best
//! (*exploit*) and perturb the policy that came with them (*explore*). The policies along the
//! best member's lineage are the schedule.
//!
//! Training is behind the trait [`Trainer`]; [`run`] is the algorithm. What happens is a list of
//! [`Event`]s, which the caller keeps as a [journal](journal). Replaying a
//! journal gives the [`Search`] it stopped at, and continuing from there gives the same events as
//! an uninterrupted run: nothing here reads a clock, touches a file, starts a thread or draws a
//! random number without an address.
//!
//! ```
//! use pba_search::{Search, SearchSpec, Spec, run, toy::ToyTrainer};
//! let spec = SearchSpec::from_json(r#"{"ops": ["Rotate"], "population": 8, "epochs": 30, "seed": 1}"#)?;
//! let mut trainer = ToyTrainer::new(&spec);
//! let mut events = 0;
//! let schedule = run(&mut Search::new(spec), &mut trainer, |_event| {
//!     events += 1;
//!     Ok(())
//! })?;
//! assert_eq!(schedule.epochs(), 30);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod comparison;
mod contrast;
mod event;
mod lineage;
mod markdown;
mod population;
mod recommend;
mod report;
mod search;
mod statistics;
pub mod toy;

pub use comparison::{Comparison, ComparisonEvent, Round, RunKey, Stage};
pub use event::{Done, Event, Exploit};
pub use lineage::{Lineage, Step};
pub use markdown::{markdown, worded};
pub use pba_specs::*;
pub use population::{Member, Population, quantile_count};
pub use search::{Search, Trainer, run};
