//! Specs and progress of jobs, as shared by server, trainer and clients.

mod model;
mod progress;
mod spec;

pub use model::{ModelName, TrainingDefaults, UnknownModel};
pub use progress::Progress;
pub use spec::{
    DeviceChoice, EvaluationSpec, LrSchedule, SearchSpec, Spec, SpecError, Strategy, TrainingSpec,
};
