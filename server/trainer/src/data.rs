//! Images to train on and to score with, and their batches.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use pba_augment::{
    Base, ImageShape, OpCounts, Permutation, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Scratch,
    hole_color, render_batch,
};
use pba_datasets::{BUILT_IN, Dataset, DatasetError, Decoded, Normalization, Samples, Split, SplitName};
use pba_schedules::Digest;
use pba_schedules::rng::{Address, Purpose};
use pba_search::SpecError;
use tch::{Device, Kind, Tensor};

use crate::network::shake::Shake;

/// An epoch that no run reaches: the address of draws that are made once per run.
const ONCE_PER_RUN: u32 = u32::MAX;
/// Images that are scored at once on a CPU, and on a GPU, which must have enough to do.
const SCORE_BATCH: usize = 500;
const SCORE_BATCH_GPU: usize = 2_000;

/// Images of one size, with what training needs to know about them.
#[derive(Clone)]
pub(crate) struct Pictures {
    pub(crate) images: Arc<Split>,
    pub(crate) shape: ImageShape,
    pub(crate) classes: usize,
    pub(crate) normalization: Normalization,
}

impl Pictures {
    /// The class of each image.
    ///
    /// # Errors
    /// When the packed file is damaged.
    pub(crate) fn labels(&self) -> anyhow::Result<Vec<i64>> {
        Ok(self.images.labels()?)
    }
}

/// The pixels of images of one size.
fn pixels_of(samples: Samples<'_>) -> Decoded<'_> {
    samples.decoded().expect("images of one size are decoded")
}

/// Where the images of a job are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The built-in `shapes`, or what `pba_datasets::open` reads.
    pub(crate) path: PathBuf,
    /// The folder that caches decoded datasets.
    pub(crate) cache: PathBuf,
    /// The splits that it had when the job was requested, with the digest of each that could be read; empty if that is
    /// not known.
    pub(crate) splits: BTreeMap<SplitName, Option<Digest>>,
}

impl Source {
    /// Where the built-in images are, once they are drawn.
    pub(crate) fn of_built_in(cache: PathBuf) -> Source {
        Source { path: BUILT_IN.into(), cache, splits: BTreeMap::new() }
    }

    /// Opens the dataset, with the splits that it had: others are left out, and one that is gone is an error in its place, so
    /// that nothing is scored on another one instead.
    pub(crate) fn open(&self) -> anyhow::Result<Dataset> {
        let Source { path, cache, splits } = self;
        std::fs::create_dir_all(cache)
            .with_context(|| format!("cannot create the cache {}", cache.display()))?;
        let go_on = |_| ControlFlow::Continue(());
        let mut dataset = if path == Path::new(BUILT_IN) {
            pba_datasets::shapes(cache, &go_on)?
        } else {
            pba_datasets::open("dataset", path, cache, &go_on)?
        };
        for (split, found) in &dataset.packed_again {
            eprintln!("warning: the {split} split was packed again: {found}");
        }
        if !splits.is_empty() {
            dataset.splits.retain(|name, _| splits.contains_key(name));
        }
        for name in splits.keys() {
            let gone = || {
                let reason = "it was there when this was requested, and is not there any more: restore it, or restart the \
                              server, so that it serves what there is, and request it again";
                Err(DatasetError::Unreadable { place: name.to_string(), reason: reason.to_owned() })
            };
            dataset.splits.entry(*name).or_insert_with(gone);
        }
        Ok(dataset)
    }

    /// Checks that a split is what it was: its files may have changed since the job was requested.
    pub(crate) fn check_same(&self, dataset: &Dataset, name: SplitName) -> Result<(), String> {
        match (self.splits.get(&name), dataset.split(name)) {
            (Some(None), Some(Ok(_))) => Err(format!(
                "a dataset whose {name} split is served: when this was requested, it was not packed yet or could not be read; \
                 once it is, request it again"
            )),
            (Some(Some(expected)), Some(Ok(found))) if *expected != found.digest() => Err(format!(
                "images as they were when the server imported them; those of the {name} split are others by now: restore \
                 the files, or restart the server, so that it serves what they are, and request it again"
            )),
            _ => Ok(()),
        }
    }
}

/// One split of a dataset, normalised as its training split is.
pub(crate) fn pictures(dataset: &Dataset, name: SplitName) -> anyhow::Result<Pictures> {
    let state = dataset.split(name).ok_or_else(|| anyhow!("the dataset has no {name} split"))?;
    let split =
        state.as_ref().map_err(Clone::clone).with_context(|| format!("cannot read the {name} split"))?;
    // All of it will be read anyway, and damage is better found now than in the middle of the training.
    split.check_all(&|_| ControlFlow::Continue(()))?;
    let Some(Normalization { mean, std }) = dataset.normalization(name) else {
        bail!("the {name} split is normalised as the train split is, which cannot be read");
    };
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

/// The base augmentation that a spec asks for; if it names none, the own one of a dataset whose training split
/// can be read.
pub(crate) fn base(text: Option<&str>, dataset: &Dataset) -> Result<Base, SpecError> {
    let train = dataset.split(SplitName::Train).and_then(|state| state.as_ref().ok());
    let shape = train.and_then(|split| split.shape());
    Base::for_training(text, Base::of_images(shape, dataset.is_hidden_by_cutout()))
        .map_err(|error| SpecError::new("base", format!("{:?}", text.unwrap_or_default()), error.to_string()))
}

/// Chooses the images to train on, and then those to score with, at random but stratified: both
/// sets have the class shares of all images, as nearly as their sizes allow.
pub(crate) fn choose(labels: &[i64], seed: u64, train: usize, val: usize) -> (Vec<u64>, Vec<u64>) {
    let classes = labels.iter().max().map_or(0, |&class| class as usize + 1);
    let (mut class_sizes, mut met) = (vec![0u64; classes], vec![0u64; classes]);
    labels.iter().for_each(|&class| class_sizes[class as usize] += 1);
    // The n-th image of a class of N has the share (n + 1/2) / N. In any stretch of the images sorted
    // by share, classes occur in proportion to their sizes.
    let share = |index: u64| {
        let class = labels[index as usize] as usize;
        met[class] += 1;
        ((met[class] as f64 - 0.5) / class_sizes[class] as f64, index)
    };
    let order = Permutation::new(labels.len() as u64, seed, ONCE_PER_RUN);
    let mut by_share: Vec<_> = (0..labels.len() as u64).map(|at| order.at(at)).map(share).collect();
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

/// The images that a member trains on.
pub(crate) struct TrainSet {
    pub(crate) pictures: Pictures,
    pub(crate) indices: Arc<[u64]>,
    pub(crate) base: Base,
    pub(crate) batch_size: usize,
    /// What the network does at random in each of its blocks.
    pub(crate) shakes: Vec<Shake>,
}

impl TrainSet {
    /// Full batches of an epoch. Remaining images appear in other epochs.
    pub(crate) fn steps(&self) -> usize {
        self.indices.len() / self.batch_size
    }

    /// Compares the images that some members, who share a packed file, train on with their checksums once more. They
    /// were whole when they were first touched, but may have been damaged since where no time of the file tells.
    ///
    /// # Errors
    /// When one is damaged.
    pub(crate) fn check_again(sets: &[TrainSet]) -> anyhow::Result<()> {
        let indices = sets.iter().flat_map(|set| set.indices.iter().copied());
        sets[0].pictures.images.check_again(indices).context("the epoch that ended is not to be trusted")
    }

    /// One member's epoch.
    pub(crate) fn epoch(&self, policies: Policies, seed: u64, epoch: u32) -> anyhow::Result<Epoch<'_>> {
        let mean = hole_color(self.pictures.normalization.mean);
        let shape = self.pictures.shape;
        let recipe = Recipe::new(RecipeSpec {
            policies,
            base: self.base,
            seed,
            epoch,
            mean,
            ..RecipeSpec::untouched(shape)
        })?;
        let every = PlanSpec::shuffled(self.indices.len() as u64, seed, epoch, self.batch_size as u32);
        let plan = Plan::new(PlanSpec { drop_last: true, ..every })?;
        let weights = Address { seed, purpose: Purpose::Shake, epoch, item: 0 };
        Ok(Epoch { set: self, recipe, plan, weights })
    }
}

/// The batches of one member's epoch. Each is a function of seed, epoch, policy and step alone.
pub(crate) struct Epoch<'a> {
    set: &'a TrainSet,
    recipe: Recipe,
    plan: Plan,
    /// Where the random weights of an image are drawn, but for the image.
    weights: Address,
}

impl Epoch<'_> {
    /// The images of a step.
    fn samples(&self, step: usize) -> impl Iterator<Item = u64> {
        let indices = &self.set.indices;
        self.plan.indices(step as u64).map(|position| indices[position as usize])
    }
}

/// Bytes and their classes: `[members, images, height, width, 3]` and `[members, images]` to train
/// with, without `members` to score with.
pub(crate) struct Batch {
    pub(crate) images: Tensor,
    pub(crate) labels: Tensor,
    /// The random weights of each image in the blocks of the network ([`Shake::draw`]), to train with:
    /// `[members, images, blocks, 2]`.
    pub(crate) shakes: Tensor,
}

impl Batch {
    /// The batches of some members' epochs at one step, side by side, on the CPU.
    ///
    /// # Errors
    /// When the packed file is damaged where one of the images lies.
    pub(crate) fn render(epochs: &[Epoch<'_>], step: usize, scratch: &mut Scratch) -> anyhow::Result<Batch> {
        let samples: Vec<u64> = epochs.iter().flat_map(|epoch| epoch.samples(step)).collect();
        let images = &epochs[0].set.pictures.images;
        Ok(images.read(samples.iter().copied(), |samples| Batch::of(samples, epochs, step, scratch))?)
    }

    fn of(found: Samples<'_>, epochs: &[Epoch<'_>], step: usize, scratch: &mut Scratch) -> Batch {
        let TrainSet { pictures, batch_size, shakes, .. } = epochs[0].set;
        let (decoded, bytes) = (pixels_of(found), batch_size * pictures.shape.rgb_bytes());
        let mut images = vec![0u8; epochs.len() * bytes];
        let mut labels = Vec::with_capacity(epochs.len() * batch_size);
        let mut weights = Vec::with_capacity(epochs.len() * batch_size * shakes.len() * 2);
        for (epoch, images) in epochs.iter().zip(images.chunks_mut(bytes)) {
            let samples = || epoch.samples(step);
            let counts = &mut OpCounts::default();
            render_batch(&epoch.recipe, samples(), |index| decoded.image(index), images, scratch, counts);
            labels.extend(samples().map(|index| found.label(index)));
            let of_image = |item| Shake::draw(shakes, Address { item, ..epoch.weights });
            weights.extend(samples().flat_map(of_image));
        }
        let size = [epochs.len() as i64, *batch_size as i64];
        let shakes = Tensor::from_slice(&weights).view([size[0], size[1], shakes.len() as i64, 2]);
        Batch { shakes, ..Batch::new(&images, &labels, &size, pictures.shape) }
    }

    fn new(images: &[u8], labels: &[i64], size: &[i64], shape: ImageShape) -> Batch {
        let pixels = [size, &[shape.height.into(), shape.width.into(), 3]].concat();
        Batch {
            images: Tensor::from_data_size(images, &pixels, Kind::Uint8),
            labels: Tensor::from_slice(labels).view(size),
            shakes: Tensor::zeros([0], (Kind::Float, Device::Cpu)),
        }
    }

    /// The batch in memory that a GPU copies from by itself; the same for a CPU.
    pub(crate) fn pinned(self, device: Device) -> Batch {
        // Of networks that do not shake, the weights of shaken branches are none.
        self.map(|tensor| match device.is_cuda() && tensor.numel() > 0 {
            true => tensor.pin_memory(device),
            false => tensor.shallow_clone(),
        })
    }

    /// The batch on a device; from pinned memory, the copy runs beside the computation.
    pub(crate) fn to_device(&self, device: Device) -> Batch {
        self.map(|tensor| match device.is_cuda() && tensor.numel() > 0 {
            true => tensor.to_device_(device, tensor.kind(), true, false),
            false => tensor.shallow_clone(),
        })
    }

    /// The same in memory of its own.
    pub(crate) fn copy(&self) -> Batch {
        self.map(Tensor::copy)
    }

    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Batch {
        Batch { images: change(&self.images), labels: change(&self.labels), shakes: change(&self.shakes) }
    }
}

/// The images that members are scored with: untouched pixels, on the device.
pub(crate) struct ScoreSet {
    pub(crate) batches: Vec<Batch>,
    pub(crate) images: usize,
}

impl ScoreSet {
    /// # Errors
    /// When the packed file is damaged where one of the images lies.
    pub(crate) fn new(pictures: &Pictures, indices: &[u64], device: Device) -> anyhow::Result<ScoreSet> {
        let at_once = if device.is_cuda() { SCORE_BATCH_GPU } else { SCORE_BATCH };
        ScoreSet::in_batches(pictures, indices, device, at_once)
    }

    /// The same in batches of `at_once` images.
    ///
    /// # Errors
    /// As those of [`ScoreSet::new`].
    pub(crate) fn in_batches(
        pictures: &Pictures,
        indices: &[u64],
        device: Device,
        at_once: usize,
    ) -> anyhow::Result<ScoreSet> {
        let batch = |indices: &[u64]| {
            let (pixels, labels) = pictures.images.read(indices.iter().copied(), |samples| {
                let decoded = pixels_of(samples);
                let pixels = indices.iter().flat_map(|&index| decoded.image(index)).copied();
                let labels = indices.iter().map(|&index| samples.label(index));
                (pixels.collect::<Vec<u8>>(), labels.collect::<Vec<i64>>())
            })?;
            let batch = Batch::new(&pixels, &labels, &[indices.len() as i64], pictures.shape);
            anyhow::Ok(batch.map(|tensor| tensor.to_device(device)))
        };
        let batches = indices.chunks(at_once).map(batch).collect::<Result<_, _>>()?;
        Ok(ScoreSet { batches, images: indices.len() })
    }

    /// The same set for another thread; the pixels are shared.
    pub(crate) fn handle(&self) -> ScoreSet {
        let clone = |batch: &Batch| batch.map(Tensor::shallow_clone);
        ScoreSet { batches: self.batches.iter().map(clone).collect(), images: self.images }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_or_damaged_ends_the_training() {
        use std::io::{Seek, SeekFrom, Write};
        let cache = tempfile::tempdir().unwrap();
        let dataset = Source::of_built_in(cache.path().to_owned()).open().unwrap();
        let pictures = pictures(&dataset, SplitName::Train).unwrap();
        let set = TrainSet {
            indices: (0..pictures.images.len()).collect(),
            base: Base::IDENTITY,
            batch_size: 64,
            shakes: Vec::new(),
            pictures,
        };
        let epoch = [set.epoch(Policies::None, 1, 0).unwrap()];
        let score = || ScoreSet::new(&set.pictures, &set.indices, Device::Cpu);
        let mut scratch = Scratch::new();
        let mut render = |step| Batch::render(&epoch, step, &mut scratch);
        render(0).unwrap();
        let expected = render(1).unwrap().images;
        let path = set.pictures.images.path();
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let bytes = std::fs::read(path).unwrap();
        file.seek(SeekFrom::Start(100_000)).unwrap();
        file.write_all(&[0; 100_000]).unwrap();
        let damaged = (0..set.steps()).find_map(|step| render(step).err()).unwrap().to_string();
        assert!(damaged.contains("record batch 0") && damaged.contains("damaged"), "{damaged}");
        assert_eq!(score().err().unwrap().to_string(), damaged);
        let after_epoch = TrainSet::check_again(std::slice::from_ref(&set)).unwrap_err();
        assert_eq!(
            format!("{after_epoch:#}"),
            format!("the epoch that ended is not to be trusted: {damaged}")
        );
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&bytes).unwrap();
        assert!(render(1).unwrap().images.equal(&expected), "restored");
        TrainSet::check_again(std::slice::from_ref(&set)).unwrap();
        file.set_len(8192).unwrap();
        let cut = render(1).err().unwrap().to_string();
        assert!(cut.contains("it has 8192 bytes"), "{cut}");
        assert_eq!(score().err().unwrap().to_string(), cut);
    }

    #[test]
    fn a_dataset_has_the_splits_that_it_had() {
        let cache = tempfile::tempdir().unwrap();
        let told = [SplitName::Train, SplitName::Val].map(|name| (name, None));
        let source = Source { splits: told.into(), ..Source::of_built_in(cache.path().to_owned()) };
        let dataset = source.open().unwrap();
        assert!(dataset.split(SplitName::Train).unwrap().is_ok());
        assert!(dataset.split(SplitName::Test).is_none(), "it came later");
        let gone = dataset.split(SplitName::Val).unwrap().as_ref().unwrap_err().to_string();
        assert!(
            gone.starts_with("val: it was there when this was requested, and is not there any more"),
            "{gone}"
        );
    }

    #[test]
    fn sets_are_stratified_and_apart() {
        // 60 % of class 0, 30 % of class 1, 10 % of class 2.
        let labels: Vec<i64> = (0..1000).map(|i| [0, 0, 0, 1, 0, 1, 0, 2, 0, 1][i % 10]).collect();
        let (train, val) = choose(&labels, 7, 200, 300);
        let shares = |indices: &[u64]| {
            let of = |class| indices.iter().filter(|&&index| labels[index as usize] == class).count();
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
