//! Augmentation: pixels in, pixels out.
//!
//! One epoch of a dataset is described by two values. A [`Plan`] says which samples stand in
//! which batch: order, shard, batch size, where to resume. A [`Recipe`] says what happens to the
//! pixels of a sample: the policies it may draw from, the base augmentation, the seed. From a
//! recipe, a sample's index and its pixels, [`render_image`] makes the pixels that go out.
//!
//! Nothing here depends on what was rendered before, on threads or on time: every random number
//! has an address ([`rng`], [`draws`]). There is no I/O in this crate.
//!
//! ```
//! use std::iter::repeat_n;
//! use pba_augment::{
//!     Base, ImageShape, OpCounts, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Scratch, Shard, render_batch,
//! };
//!
//! let schedule = pba_schedules::library::cifar10_pba();
//! let shape = ImageShape { height: 32, width: 32 };
//! let dataset: Vec<Vec<u8>> = (0..100).map(|gray| vec![gray; shape.rgb_bytes()]).collect();
//!
//! let recipe = Recipe::new(RecipeSpec {
//!     policies: Policies::One(schedule.at(199, 200)?.clone()),
//!     base: Base::cifar(),
//!     seed: 1,
//!     epoch: 199,
//!     mean: [125, 123, 114],
//!     ..RecipeSpec::untouched(shape)
//! })?;
//! let plan = Plan::new(PlanSpec::shuffled(100, 1, 199, 32))?;
//! assert_eq!((plan.batches(), plan.rows()), (4, 100));
//!
//! let (mut scratch, mut counts) = (Scratch::new(), OpCounts::default());
//! for batch in 0..plan.batches() {
//!     let mut out = vec![0; plan.len_of(batch) * shape.rgb_bytes()];
//!     let image = |index: u64| dataset[index as usize].as_slice();
//!     render_batch(&recipe, plan.indices(batch), image, &mut out, &mut scratch, &mut counts);
//! }
//! assert!(counts.iter().map(|(_, count)| count).sum::<u64>() > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod base;
mod bins;
mod call;
pub mod draws;
mod frame;
mod image;
mod magnitude;
pub mod ops;
mod order;
mod plan;
mod recipe;
mod render;
mod route;
mod scratch;
mod simd;
mod walk;

pub use base::{BASE_NUMBER_MAX, Base, BaseError};
pub use bins::Bins;
pub use call::{Action, OpCall, OpCalls, OpCounts, Sign};
pub use frame::{FRAME_SIDE_MAX, Frame, View};
pub use image::Rgba;
pub use ops::{apply, caption};
pub use order::Permutation;
pub use pba_types::limits::{BATCH_SIZE_MAX, SIDE_MAX};
pub use pba_types::{ImageShape, PixelBox, ShapeError, rng};
pub use plan::{Plan, PlanError, PlanSpec, Shard};
pub use recipe::{PIXELS_VERSION, Policies, Recipe, RecipeError, RecipeSpec, hole_color};
pub use render::{render_batch, render_image, render_source, resize};
pub use scratch::Scratch;
pub use simd::level::Level;
pub use simd::resize::Source;
