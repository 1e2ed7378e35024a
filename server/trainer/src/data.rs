//! Images to train on and to score with, and their batches.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use pba_augment::{
    Base, ImageShape, OpCounts, Permutation, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Scratch, Shard,
    hole_color, render_batch,
};
use pba_datasets::{BUILT_IN, Dataset, Normalization, Split, SplitName};
use pba_schedules::rng::{Address, Purpose};
use pba_search::SpecError;
use tch::{Device, Kind, Tensor};

/// An epoch that no run reaches: the address of draws that are made once per run.
const ONCE_PER_RUN: u32 = u32::MAX;

/// Images with their labels, by index.
pub(crate) trait Images: Send + Sync {
    fn len(&self) -> u64;
    /// Interleaved red, green and blue bytes.
    fn image(&self, index: u64) -> &[u8];
    fn label(&self, index: u64) -> i64;
}

impl Images for Split {
    fn len(&self) -> u64 {
        Split::len(self)
    }

    fn image(&self, index: u64) -> &[u8] {
        self.decoded().expect("pictures() takes no others").image(index)
    }

    fn label(&self, index: u64) -> i64 {
        Split::label(self, index)
    }
}

/// Images of one size, with what training needs to know about them.
#[derive(Clone)]
pub(crate) struct Pictures {
    pub(crate) images: Arc<dyn Images>,
    pub(crate) shape: ImageShape,
    pub(crate) classes: usize,
    pub(crate) normalization: Normalization,
}

/// Opens a dataset: the built-in `shapes`, or one that `pba_datasets::open` reads at a path.
pub(crate) fn open(path: &Path, cache: &Path) -> anyhow::Result<Dataset> {
    std::fs::create_dir_all(cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
    let go_on = |_| ControlFlow::Continue(());
    let dataset = if path == Path::new(BUILT_IN) {
        pba_datasets::shapes(cache, &go_on)?
    } else {
        pba_datasets::open("dataset", path, cache, &go_on)?
    };
    Ok(dataset)
}

/// One split of a dataset, normalised as its training split is.
pub(crate) fn pictures(dataset: &Dataset, name: SplitName) -> anyhow::Result<Pictures> {
    let state = dataset.split(name).ok_or_else(|| anyhow!("the dataset has no {name} split"))?;
    let split =
        state.as_ref().map_err(Clone::clone).with_context(|| format!("cannot read the {name} split"))?;
    let Normalization { mean, std } = dataset.normalization(name).expect("the split can be read");
    let shape = split.shape().ok_or_else(|| {
        anyhow!("the images of the {name} split differ in size, but models train on images of one size")
    })?;
    Ok(Pictures {
        images: split.clone(),
        shape,
        classes: split.classes().len(),
        // A channel that never changes would be divided by zero.
        normalization: Normalization { mean, std: std.map(|std| std.max(1.0 / 255.0)) },
    })
}

/// The base augmentation that a spec asks for; the dataset's own if it names none.
pub(crate) fn base(text: Option<&str>, dataset: &Dataset) -> Result<Base, SpecError> {
    Base::for_training(text, Base::of_dataset(dataset.shapes(), dataset.is_hidden_by_cutout()))
        .map_err(|error| SpecError::new("base", format!("{:?}", text.unwrap_or_default()), error.to_string()))
}

/// Chooses the images to train on, and then those to score with, at random but stratified: both
/// sets have the class shares of all images, as nearly as their sizes allow.
pub(crate) fn choose(images: &dyn Images, seed: u64, train: usize, val: usize) -> (Vec<u64>, Vec<u64>) {
    let order = Permutation::new(images.len(), seed, ONCE_PER_RUN);
    let order: Vec<u64> = (0..images.len()).map(|position| order.at(position)).collect();
    let label = |index: u64| images.label(index) as usize;
    let mut class_sizes = vec![0u64; order.iter().map(|&index| label(index) + 1).max().unwrap_or(0)];
    order.iter().for_each(|&index| class_sizes[label(index)] += 1);
    // The n-th image of a class of N has the share (n + 1/2) / N. In any stretch of the images sorted
    // by share, classes occur in proportion to their sizes.
    let mut met = vec![0u64; class_sizes.len()];
    let mut by_share: Vec<(f64, u64)> = order
        .iter()
        .map(|&index| {
            let class = label(index);
            met[class] += 1;
            ((met[class] as f64 - 0.5) / class_sizes[class] as f64, index)
        })
        .collect();
    // Stable: classes of the same size take turns in a random order.
    by_share.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut indices = by_share.into_iter().map(|(_, index)| index);
    (indices.by_ref().take(train).collect(), indices.take(val).collect())
}

/// The seed of everything a member draws: weights, order, augmentation.
pub(crate) fn member_seed(seed: u64, member: u32) -> u64 {
    let words = Address { seed, purpose: Purpose::Search, epoch: ONCE_PER_RUN, item: member.into() }.block(0);
    u64::from(words[1]) << 32 | u64::from(words[0])
}

/// The images that members train on.
#[derive(Clone)]
pub(crate) struct TrainSet {
    pub(crate) pictures: Pictures,
    pub(crate) indices: Vec<u64>,
    pub(crate) base: Base,
    pub(crate) batch_size: usize,
}

impl TrainSet {
    /// Full batches of an epoch. Remaining images appear in other epochs.
    pub(crate) fn steps(&self) -> usize {
        self.indices.len() / self.batch_size
    }

    /// Bytes of the images of a batch.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.batch_size * self.pictures.shape.rgb_bytes()
    }

    /// One member's epoch.
    pub(crate) fn epoch(&self, policies: Policies, seed: u64, epoch: u32) -> anyhow::Result<Epoch<'_>> {
        let mean = hole_color(self.pictures.normalization.mean);
        let shape = self.pictures.shape;
        let recipe = Recipe::new(RecipeSpec { policies, base: self.base, seed, epoch, mean, shape })?;
        let plan = Plan::new(PlanSpec {
            samples: self.indices.len() as u64,
            seed,
            epoch,
            shuffle: true,
            shard: Shard::WHOLE,
            batch_size: self.batch_size as u32,
            drop_last: true,
            start: 0,
            step: 1,
        })?;
        Ok(Epoch { set: self, recipe, plan })
    }
}

/// The batches of one member's epoch. Each is a function of seed, epoch, policy and step alone.
pub(crate) struct Epoch<'a> {
    set: &'a TrainSet,
    recipe: Recipe,
    plan: Plan,
}

impl Epoch<'_> {
    /// Renders a batch: pixels into `images`, classes into `labels`.
    pub(crate) fn render(&self, step: usize, images: &mut [u8], labels: &mut [i64], scratch: &mut Scratch) {
        let Pictures { images: source, .. } = &self.set.pictures;
        let indices = || self.plan.indices(step as u64).map(|position| self.set.indices[position as usize]);
        render_batch(
            &self.recipe,
            indices(),
            |index| source.image(index),
            images,
            scratch,
            &mut OpCounts::default(),
        );
        for (label, index) in labels.iter_mut().zip(indices()) {
            *label = source.label(index);
        }
    }
}

/// A rendered batch of one or more members, on the CPU.
pub(crate) struct Batch {
    pub(crate) images: Tensor,
    pub(crate) labels: Tensor,
}

impl Batch {
    /// The batches of some members' epochs at one step, side by side.
    pub(crate) fn render(epochs: &[Epoch<'_>], step: usize, scratch: &mut Scratch) -> Batch {
        let set = epochs[0].set;
        let (members, count) = (epochs.len(), set.batch_size);
        let mut images = vec![0u8; members * set.batch_bytes()];
        let mut labels = vec![0i64; members * count];
        let parts = images.chunks_mut(set.batch_bytes()).zip(labels.chunks_mut(count));
        for (epoch, (images, labels)) in epochs.iter().zip(parts) {
            epoch.render(step, images, labels, scratch);
        }
        let ImageShape { height, width } = set.pictures.shape;
        let size = [members as i64, count as i64, height.into(), width.into(), 3];
        Batch {
            images: Tensor::from_data_size(&images, &size, Kind::Uint8),
            labels: Tensor::from_slice(&labels).view([members as i64, count as i64]),
        }
    }

    /// The batch on a device. From pinned memory, so that the copy runs beside the computation.
    pub(crate) fn to_device(&self, device: Device) -> Batch {
        let moved = |tensor: &Tensor| match device.is_cuda() {
            true => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
            false => tensor.shallow_clone(),
        };
        Batch { images: moved(&self.images), labels: moved(&self.labels) }
    }
}

/// The images that members are scored with: untouched pixels, on the device.
pub(crate) struct ScoreSet {
    batches: Vec<(Tensor, Tensor)>,
    images: usize,
}

impl ScoreSet {
    pub(crate) fn new(pictures: &Pictures, indices: &[u64], batch_size: usize, device: Device) -> ScoreSet {
        let ImageShape { height, width } = pictures.shape;
        let batch = |indices: &[u64]| {
            let pixels: Vec<u8> =
                indices.iter().flat_map(|&index| pictures.images.image(index)).copied().collect();
            let labels: Vec<i64> = indices.iter().map(|&index| pictures.images.label(index)).collect();
            let size = [indices.len() as i64, height.into(), width.into(), 3];
            let images = Tensor::from_data_size(&pixels, &size, Kind::Uint8);
            (images.to_device(device), Tensor::from_slice(&labels).to_device(device))
        };
        ScoreSet { batches: indices.chunks(batch_size).map(batch).collect(), images: indices.len() }
    }

    pub(crate) fn images(&self) -> usize {
        self.images
    }

    /// Images and labels, batch by batch.
    pub(crate) fn batches(&self) -> &[(Tensor, Tensor)] {
        &self.batches
    }

    /// The same set for another thread; the pixels are shared.
    pub(crate) fn handle(&self) -> ScoreSet {
        let clone = |(images, labels): &(Tensor, Tensor)| (images.shallow_clone(), labels.shallow_clone());
        ScoreSet { batches: self.batches.iter().map(clone).collect(), images: self.images }
    }
}

/// Random pixels, for benchmarks.
pub(crate) struct Noise {
    pixels: Vec<u8>,
    images: u64,
}

impl Noise {
    const SIDE: usize = 32;
    const CLASSES: usize = 10;

    /// `images` 32x32 images of ten classes.
    pub(crate) fn pictures(images: u64) -> Pictures {
        let mut pixels = vec![0; images as usize * Noise::SIDE * Noise::SIDE * 3];
        let address = Address { seed: 0, purpose: Purpose::Dataset, epoch: 0, item: 0 };
        rand::Rng::fill_bytes(&mut address.stream(), &mut pixels);
        Pictures {
            images: Arc::new(Noise { pixels, images }),
            shape: ImageShape { height: Noise::SIDE as u32, width: Noise::SIDE as u32 },
            classes: Noise::CLASSES,
            normalization: Normalization { mean: [0.5; 3], std: [0.25; 3] },
        }
    }
}

impl Images for Noise {
    fn len(&self) -> u64 {
        self.images
    }

    fn image(&self, index: u64) -> &[u8] {
        let bytes = Noise::SIDE * Noise::SIDE * 3;
        &self.pixels[index as usize * bytes..][..bytes]
    }

    fn label(&self, index: u64) -> i64 {
        (index % Noise::CLASSES as u64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Labels(Vec<i64>);

    impl Images for Labels {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn image(&self, _: u64) -> &[u8] {
            &[]
        }

        fn label(&self, index: u64) -> i64 {
            self.0[index as usize]
        }
    }

    #[test]
    fn sets_are_stratified_and_apart() {
        // 60 % of class 0, 30 % of class 1, 10 % of class 2.
        let labels = Labels((0..1000).map(|i| [0, 0, 0, 1, 0, 1, 0, 2, 0, 1][i % 10]).collect());
        let (train, val) = choose(&labels, 7, 200, 300);
        let shares = |indices: &[u64]| {
            let of = |class| indices.iter().filter(|&&index| labels.label(index) == class).count();
            [of(0), of(1), of(2)]
        };
        assert_eq!(shares(&train), [120, 60, 20]);
        assert_eq!(shares(&val), [180, 90, 30]);
        let mut all: Vec<u64> = train.iter().chain(&val).copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 500);
        assert_eq!(choose(&labels, 7, 200, 300), (train.clone(), val));
        assert_ne!(choose(&labels, 8, 200, 300).0, train);
    }
}
