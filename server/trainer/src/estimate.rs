//! How long a job would take on the CPU of this machine.

use std::path::Path;
use std::sync::Arc;

use pba_search::{Spec, SpecError};

use crate::cpu::threads;
use crate::data::Pictures;
use crate::device::idle_gpu;
use crate::models;
use crate::network::net::multiply_adds;

/// Multiply-adds that a core does in a second while it trains, at best: `tiny` and its 3.1 million train 3,200
/// images in a second of an EPYC core with AVX-512 (`benches/trainer.md`), which is 29 billion.
const CORE_RATE: f64 = 40e9;
/// Passes that a step makes over the network: forward, and backward to the activations and to the weights.
const TRAINING_PASSES: f64 = 3.0;
/// A job that takes longer runs on a CPU only if its spec says so.
const HOURS_MAX: f64 = 6.0;

/// Refuses a job that would take very long on the CPU, because that device was not asked for. So many networks
/// are trained side by side, each on a core.
///
/// # Errors
/// When it would, with the estimate.
pub(crate) fn refuse_if_too_long<S: Spec>(
    spec: &S,
    pictures: &Pictures,
    networks: usize,
) -> Result<(), SpecError> {
    let training = spec.training();
    let cores = threads().min(networks);
    let model = Arc::new(models::build(training.model, pictures.classes));
    let per_image = multiply_adds(&model, pictures.shape.height, pictures.shape.width) as f64;
    let trained = spec.images() as f64;
    let passes = TRAINING_PASSES * trained + spec.images_scored() as f64;
    let hours = passes * per_image / (CORE_RATE * cores as f64) / 3600.0;
    if hours <= HOURS_MAX {
        return Ok(());
    }
    let mut allowed = format!(
        "cpu, to insist: there is no CUDA here, and this takes about {hours:.0} hours, or more, on {cores} CPU \
         core{}",
        if cores == 1 { "" } else { "s" }
    );
    if let Some(note) = idle_gpu(Path::new("/")) {
        allowed = format!("{allowed}; {note}");
    }
    Err(SpecError::new("device", "\"auto\"", allowed))
}
