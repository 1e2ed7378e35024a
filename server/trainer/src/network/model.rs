//! What a model is: its layers, and the numbers that they start with.

use pba_schedules::rng::{Address, Purpose};
use rand::Rng;
use tch::Tensor;

use crate::network::layers::{Builder, Init, Layout, Pass};
use crate::network::rows::Rows;

/// What a network does in a pass: from normalised pixels `[images, members * 3, height, width]` to
/// logits `[members, images, classes]`.
pub(crate) type Body = Box<dyn Fn(&Pass, &Tensor) -> Tensor + Send + Sync>;

/// A network without its numbers.
pub(crate) struct Model {
    pub(crate) body: Body,
    pub(crate) layers: Builder,
}

impl Model {
    /// The network whose layers `declare` takes from a builder.
    pub(crate) fn new(declare: impl FnOnce(&mut Builder) -> Body) -> Model {
        let mut layers = Builder::default();
        Model { body: declare(&mut layers), layers }
    }

    /// The initial row of a member, on the CPU: weights that depend on `seed` alone.
    pub(crate) fn initial_rows(&self, seed: u64) -> Rows {
        let initial = |epoch, layout| {
            let row = initial_row(layout, Address { seed, purpose: Purpose::Weights, epoch, item: 0 });
            Tensor::from_slice(&row).unsqueeze(0)
        };
        let Builder { matrices, vectors, statistics, .. } = &self.layers;
        let parameters = Tensor::cat(&[initial(0, matrices), initial(1, vectors)], 1);
        Rows { momentum: parameters.zeros_like(), parameters, statistics: initial(2, statistics) }
    }

    /// Trainable numbers.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> i64 {
        self.layers.matrices.parameters() + self.layers.vectors.parameters()
    }
}

fn initial_row(layout: &Layout, address: Address) -> Vec<f32> {
    let mut row = vec![0.0; layout.len as usize];
    for (item, entry) in (0..).zip(&layout.entries) {
        let numbers = &mut row[entry.offset as usize..][..entry.len() as usize];
        match entry.init {
            Init::Constant(constant) => numbers.fill(constant as f32),
            Init::Normal(std) => fill_normal(numbers, std, Address { item, ..address }),
        }
    }
    row
}

/// Normal numbers by Box and Muller's transform, two from two words.
fn fill_normal(numbers: &mut [f32], std: f64, address: Address) {
    let mut words = address.stream();
    // In (0, 1], so that its logarithm is finite.
    let mut uniform = || (f64::from(words.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
    for pair in numbers.chunks_mut(2) {
        let radius = std * (-2.0 * uniform().ln()).sqrt();
        let (sin, cos) = (2.0 * std::f64::consts::PI * uniform()).sin_cos();
        for (number, direction) in pair.iter_mut().zip([cos, sin]) {
            *number = (radius * direction) as f32;
        }
    }
}
