//! What a trainer may be asked to do, and how far it is: what server, trainer and clients share of jobs.

mod model;
mod progress;
mod spec;

pub use model::{ModelName, TrainingDefaults, UnknownModel};
pub use progress::Progress;
pub use spec::{
    DeviceChoice, EvaluationSpec, LrSchedule, SearchSpec, Spec, SpecError, Strategy, TrainingSpec,
};
