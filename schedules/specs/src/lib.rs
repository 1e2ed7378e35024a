//! What server, trainer and clients share of jobs: specs, results, events, the journal and the protocol.

mod arm;
mod comparison;
mod evaluation;
mod fields;
pub mod journal;
mod model;
mod preset;
mod progress;
pub mod protocol;
mod report;
mod search;
mod training;

/// Passes every kind of job to a macro, as `Type in file`: the type that folds its events, and the name
/// of its file here and in the trainer.
#[macro_export]
macro_rules! kinds {
    ($then:ident) => {
        $then! { Comparison in comparison, Evaluation in evaluation, Search in search }
    };
}

pub use arm::Arm;
pub use comparison::ComparisonSpec;
pub use evaluation::{Evaluated, Evaluation, EvaluationEvent, EvaluationResults, EvaluationSpec};
pub use fields::{SpecError, read_fields};
pub use journal::Run;
pub use model::{ModelName, TrainingDefaults, UnknownModel};
pub use preset::Preset;
pub use progress::{Progress, TrainingPlace};
pub use report::{ArmResults, Candidate, ComparisonResults, Contrast, Entry, Score, Tuning, Unit, Verdict};
pub use search::{MemberResults, SearchResults, SearchSpec};
pub use training::{DeviceChoice, LrSchedule, Precision, Spec, Strategy, TrainingSpec};
