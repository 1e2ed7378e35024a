//! Everything that fixes one epoch's pixels, besides the pixels themselves.

use std::sync::Arc;

use pba_schedules::{Policy, Schedule};
use pba_types::{ImageShape, ShapeError};

use crate::base::{Base, BaseError};
use crate::call::OpCalls;
use crate::draws::BaseDraws;
use crate::frame::{Frame, View};
use crate::simd::level::Level;
use crate::walk::Walk;
use pba_types::rng::{Address, Purpose, below};

/// Rises whenever a recipe makes other pixels, or a plan another order, than before: whenever a golden digest
/// changes. It is part of a stream's recipe digest, so that no client goes on with a server that differs.
pub const PIXELS_VERSION: u32 = 1;

/// What the images of an epoch draw their policy from.
#[derive(Clone, Debug, PartialEq)]
pub enum Policies {
    /// No policy: base augmentation only.
    None,
    /// All images share this policy.
    One(Policy),
    /// Each image draws a search epoch uniformly, and uses the policy of that epoch.
    AnyEpochOf(Arc<Schedule>),
}

/// The fields of a [`Recipe`], not yet checked.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipeSpec {
    /// What the images draw their policy from.
    pub policies: Policies,
    /// What happens besides the policy; [`Base`] says when.
    pub base: Base,
    /// Seed of every draw.
    pub seed: u64,
    /// Epoch of every draw, 0-based.
    pub epoch: u32,
    /// Red, green and blue of padding, cutouts and holes: the rounded mean of each channel over
    /// the training split.
    pub mean: [u8; 3],
    /// Size of every image that comes out; and of every image that goes in, where the base's frame
    /// is the whole image.
    pub shape: ImageShape,
}

impl RecipeSpec {
    /// Images of a size, untouched.
    pub fn untouched(shape: ImageShape) -> RecipeSpec {
        RecipeSpec { policies: Policies::None, base: Base::IDENTITY, seed: 0, epoch: 0, mean: [0; 3], shape }
    }
}

/// Why a recipe was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Images of a size that is out of range.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A base augmentation with a number that is out of range.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A frame that makes images of another size than the recipe's.
    #[error(
        "images of {} rows and {} columns do not come out of {frame}; allowed are {} rows and {} columns",
        shape.height, shape.width, made.height, made.width
    )]
    Frame {
        /// The frame.
        frame: Frame,
        /// Size of the images that it makes.
        made: ImageShape,
        /// Size that was asked for.
        shape: ImageShape,
    },
}

/// The colour that fills holes: the mean of each channel, 0..1, as the nearest byte.
pub fn hole_color(mean: [f64; 3]) -> [u8; 3] {
    mean.map(|mean| (mean * 255.0).round() as u8)
}

/// A checked [`RecipeSpec`], built once per stream and shared by its workers.
#[derive(Clone, Debug)]
pub struct Recipe {
    spec: RecipeSpec,
    /// The policies, each with the search epoch that it ends before.
    walks: Vec<(u32, Walk)>,
    /// A row of the mean colour, to copy from.
    pub(crate) mean_row: Vec<u8>,
}

impl Recipe {
    /// Checks a specification, and prepares what all its images share.
    ///
    /// # Errors
    /// When a side of the shape or a number of the base augmentation is out of range, and when the
    /// base's frame makes images of another shape.
    pub fn new(spec: RecipeSpec) -> Result<Recipe, RecipeError> {
        spec.shape.check()?;
        let frame = spec.base.check()?.frame;
        if let Some(made) = frame.shape().filter(|&made| made != spec.shape) {
            return Err(RecipeError::Frame { frame, made, shape: spec.shape });
        }
        let walks = match &spec.policies {
            Policies::None => Vec::new(),
            Policies::One(policy) => vec![(1, Walk::new(policy, spec.shape))],
            Policies::AnyEpochOf(schedule) => {
                let mut end = 0;
                let by_end = schedule.segments().iter().map(|segment| {
                    end += segment.epochs;
                    (end, Walk::new(&segment.policy, spec.shape))
                });
                by_end.collect()
            }
        };
        let mean_row = spec.mean.repeat(spec.shape.width as usize);
        Ok(Recipe { spec, walks, mean_row })
    }

    /// What it was made from.
    pub fn spec(&self) -> &RecipeSpec {
        &self.spec
    }

    /// Size of every image.
    pub fn shape(&self) -> ImageShape {
        self.spec.shape
    }

    /// Most ops that the policies apply to one sample.
    pub fn calls_max(&self) -> usize {
        match &self.spec.policies {
            Policies::None => 0,
            Policies::One(policy) => policy.calls_max(),
            Policies::AnyEpochOf(schedule) => {
                schedule.segments().iter().map(|segment| segment.policy.calls_max()).max().unwrap_or(0)
            }
        }
    }

    /// The ops that the policy applies to a sample.
    pub fn op_calls(&self, sample: u64) -> OpCalls {
        self.draws(Level::PORTABLE, sample).0
    }

    /// Where the base augmentation cuts a sample, and whether it mirrors it.
    pub fn base_draws(&self, sample: u64) -> BaseDraws {
        self.draws(Level::PORTABLE, sample).1
    }

    /// Which part of a source image of this size a sample shows.
    ///
    /// # Panics
    /// When a side of `source` is not within 1..=[`SIDE_MAX`](crate::SIDE_MAX).
    pub fn view(&self, sample: u64, source: ImageShape) -> View {
        source.check().expect("a source within bounds");
        self.spec.base.frame.view(&self.address(Purpose::Frame, sample), source)
    }

    /// [`Recipe::op_calls`] and [`Recipe::base_draws`] at once. They are the same at every level.
    pub fn draws(&self, level: Level, sample: u64) -> (OpCalls, BaseDraws) {
        let mut calls = OpCalls::NONE;
        let draws = self.draw(level, sample, &mut calls);
        (calls, draws)
    }

    /// As [`Recipe::draws`], with ops that replace `calls`.
    // A call for each image is felt where nothing else is done to it.
    #[inline(always)]
    pub(crate) fn draw(&self, level: Level, sample: u64, calls: &mut OpCalls) -> BaseDraws {
        let (base, shape) = (&self.spec.base, self.spec.shape);
        let address = self.address(Purpose::Policy, sample);
        let walk = match self.walks.as_slice() {
            [] => {
                let address = self.address(Purpose::Base, sample);
                calls.clear(false);
                return BaseDraws::from_blocks(|block| address.block(block), base, shape);
            }
            [(_, walk)] => walk,
            [.., (epochs, _)] => {
                let search_epoch = below(address.block(0)[3], *epochs);
                &self.walks[self.walks.partition_point(|&(end, _)| end <= search_epoch)].1
            }
        };
        walk.draw(level, &address, base, shape, calls)
    }

    fn address(&self, purpose: Purpose, sample: u64) -> Address {
        Address { seed: self.spec.seed, purpose, epoch: self.spec.epoch, item: sample }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_have_the_nearest_byte() {
        assert_eq!(hole_color([0.0, 0.4981, 1.0]), [0, 127, 255]);
    }
}
