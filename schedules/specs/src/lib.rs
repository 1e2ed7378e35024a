//! Specs and progress of jobs, as shared by server, trainer and clients.

mod evaluation;
mod fields;
mod model;
mod progress;
mod search;
mod training;

pub use evaluation::{EvaluationResults, EvaluationSpec};
pub use fields::SpecError;
pub use model::{ModelName, TrainingDefaults, UnknownModel};
pub use progress::Progress;
pub use search::{MemberResults, SearchResults, SearchSpec};
pub use training::{DeviceChoice, LrSchedule, Spec, Strategy, TrainingSpec};
