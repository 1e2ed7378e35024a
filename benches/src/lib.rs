//! Benchmarks, ours beside the peers: the works that are measured, and pictures to measure on.

use pba_augment::rng::{Address, Purpose};
use pba_augment::{Base, ImageShape, Policies, Recipe, RecipeError, RecipeSpec};
use pba_schedules::{Op, Policy, library};
use rand::Rng;

/// Seed of everything drawn here.
pub const SEED: u64 = 5;

/// Epoch of the policy that [`Work::Pba`] measures: the last of the paper's CIFAR-10 schedule.
pub const EPOCH: u32 = 199;

/// A magnitude at which no op is at rest, to measure single ops at.
pub const MAGNITUDE: u8 = 7;

/// Mean colour of the CIFAR-10 training images.
pub const MEAN: [u8; 3] = [125, 123, 114];

/// What is done to each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The last policy of the paper's CIFAR-10 schedule, then crop, flip and cutout.
    Pba,
    /// Crop, flip and cutout alone.
    Base,
    /// Nothing, through the same code.
    Identity,
    /// One op on every image, and nothing else.
    Op(Op, u8),
}

impl Work {
    /// The recipe of this work.
    ///
    /// # Errors
    /// When the shape is out of range.
    pub fn recipe(self, shape: ImageShape) -> Result<Recipe, RecipeError> {
        let last = || library::cifar10_pba().at_search_epoch(EPOCH).clone();
        let (policies, base) = match self {
            Work::Pba => (Policies::One(last()), Base::cifar()),
            Work::Base => (Policies::None, Base::cifar()),
            Work::Identity => (Policies::None, Base::IDENTITY),
            Work::Op(op, magnitude) => {
                let levels = [10, magnitude, 0, 0];
                let policy = Policy::from_hyperparameters(&[op], &levels).expect("a policy of one op");
                (Policies::One(policy), Base::IDENTITY)
            }
        };
        let seeded = RecipeSpec { seed: SEED, epoch: EPOCH, mean: MEAN, ..RecipeSpec::untouched(shape) };
        Recipe::new(RecipeSpec { policies, base, ..seeded })
    }
}

/// So many pictures one after another: soft colour gradients with some noise, which is nearer to
/// photographs than noise alone.
pub fn pictures(count: usize, shape: ImageShape) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * shape.rgb_bytes());
    for item in 0..count as u64 {
        let mut rng = Address { seed: SEED, purpose: Purpose::Dataset, epoch: 0, item }.stream();
        let slopes: [[i32; 3]; 3] = std::array::from_fn(|_| {
            let [across, down, start, _] = rng.next_u32().to_le_bytes().map(i32::from);
            [across - 128, down - 128, start]
        });
        let (height, width) = (shape.height as i32, shape.width as i32);
        for y in 0..height {
            for x in 0..width {
                let noise = rng.next_u32().to_le_bytes();
                for (channel, [across, down, start]) in slopes.into_iter().enumerate() {
                    let value =
                        start + across * x / width + down * y / height + i32::from(noise[channel] >> 4);
                    bytes.push(value.clamp(0, 255) as u8);
                }
            }
        }
    }
    bytes
}
