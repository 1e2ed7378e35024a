//! The weights that a member starts with.

use pba_schedules::rng::{Address, Purpose};
use rand::Rng;
use tch::Tensor;

use crate::network::layers::{Init, Layout};
use crate::network::model::Model;
use crate::network::rows::Rows;

/// The initial row of a member, on the CPU: weights that depend on `seed` alone.
pub(crate) fn initial_rows(model: &Model, seed: u64) -> Rows {
    let layouts = [&model.matrices, &model.vectors];
    let mut parameters = Vec::new();
    for (epoch, layout) in (0..).zip(layouts) {
        parameters.extend(initial(layout, Address { seed, purpose: Purpose::Weights, epoch, item: 0 }));
    }
    let statistics =
        initial(&model.statistics, Address { seed, purpose: Purpose::Weights, epoch: 2, item: 0 });
    let parameters = Tensor::from_slice(&parameters).unsqueeze(0);
    Rows {
        momentum: parameters.zeros_like(),
        parameters,
        statistics: Tensor::from_slice(&statistics).unsqueeze(0),
    }
}

fn initial(layout: &Layout, address: Address) -> Vec<f32> {
    let mut row = vec![0.0; layout.len() as usize];
    for (item, entry) in (0..).zip(&layout.entries) {
        let start = entry.offset() as usize;
        let numbers = &mut row[start..start + entry.len() as usize];
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
