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
//! use pba_search::{Search, SearchResults, SearchSpec, Spec, run, toy::ToyTrainer};
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

mod evaluation;
mod event;
pub mod journal;
mod lineage;
mod population;
pub mod protocol;
mod search;
pub mod toy;

/// Passes every kind of job to a macro, as `Type in file`: the type that folds its events, and the name
/// of its file here and in the trainer.
#[macro_export]
macro_rules! kinds {
    ($then:ident) => {
        $then! { Evaluation in evaluation, Search in search }
    };
}

pub use evaluation::{Evaluated, Evaluation, EvaluationEvent};
pub use event::{Done, Event, Exploit};
pub use journal::Run;
pub use lineage::{Lineage, Step};
pub use pba_specs::{
    DeviceChoice, EvaluationResults, EvaluationSpec, LrSchedule, MemberResults, ModelName, Progress,
    SearchResults, SearchSpec, Spec, SpecError, Strategy, TrainingDefaults, TrainingSpec, UnknownModel,
};
pub use population::{Member, Population, quantile_count};
pub use search::{Search, Trainer, run};
