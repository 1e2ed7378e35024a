//! The digest of everything that the pixels of a training run depend on.

use pba_augment::{Base, ImageShape, PIXELS_VERSION};
use pba_datasets::DECODER_VERSION;
use pba_schedules::{Ablation, Digest};

/// What pixels and order depend on besides epoch, shard and batch, which a client asks for by number.
///
/// Two servers whose streams have the same digest send the same samples, in the same order, with the
/// same pixels, in every epoch. So a client may go on with the other one, in the middle of an epoch or in
/// the next; and shards and batch sizes may be others.
#[derive(Clone)]
pub(super) struct RecipeDigest<'a> {
    /// Of the split.
    pub(super) dataset: Digest,
    /// Samples of the whole epoch, and their size.
    pub(super) samples: u64,
    pub(super) shape: ImageShape,
    /// Digest of the schedule or policy, or `none`, or `identity`.
    pub(super) schedule: &'a str,
    /// Epochs of the run, where policies depend on them.
    pub(super) epochs: Option<u32>,
    pub(super) ablation: Ablation,
    pub(super) base: Base,
    pub(super) seed: u64,
    pub(super) is_shuffled: bool,
    pub(super) drops_last: bool,
    /// Per channel, 0..1.
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

impl RecipeDigest<'_> {
    pub(super) fn digest(&self) -> Digest {
        let RecipeDigest {
            dataset,
            samples,
            shape: ImageShape { height, width },
            schedule,
            epochs,
            ablation,
            base,
            seed,
            is_shuffled,
            drops_last,
            mean,
            std,
        } = self;
        let epochs = epochs.map_or("any".to_owned(), |epochs| epochs.to_string());
        Digest::of(format!(
            "pba-recipe/1\npixels {PIXELS_VERSION}, decoder {DECODER_VERSION}\ndataset {dataset}, {samples} of {height}x{width}\n\
             schedule {schedule}, epochs {epochs}, ablation {ablation}\nbase {base}\n\
             seed {seed}, shuffle {is_shuffled}, drop_last {drops_last}\nmean {mean:?}, std {std:?}\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let recipe = RecipeDigest {
            dataset: Digest::of("a"),
            samples: 10,
            shape: ImageShape { height: 32, width: 32 },
            schedule: "none",
            epochs: None,
            ablation: Ablation::Scheduled,
            base: Base::IDENTITY,
            seed: 0,
            is_shuffled: true,
            drops_last: false,
            mean: [0.5; 3],
            std: [0.25; 3],
        };
        let others = [
            RecipeDigest { dataset: Digest::of("b"), ..recipe.clone() },
            RecipeDigest { samples: 11, ..recipe.clone() },
            RecipeDigest { shape: ImageShape { height: 32, width: 33 }, ..recipe.clone() },
            RecipeDigest { schedule: "identity", ..recipe.clone() },
            RecipeDigest { epochs: Some(1), ..recipe.clone() },
            RecipeDigest { ablation: Ablation::Final, ..recipe.clone() },
            RecipeDigest { base: Base::cifar(), ..recipe.clone() },
            RecipeDigest { seed: 1, ..recipe.clone() },
            RecipeDigest { is_shuffled: false, ..recipe.clone() },
            RecipeDigest { drops_last: true, ..recipe.clone() },
            RecipeDigest { mean: [0.5, 0.5, 0.500_000_000_000_001], ..recipe.clone() },
            RecipeDigest { std: [0.25, 0.25, 0.3], ..recipe.clone() },
        ];
        let mut digests: Vec<Digest> = others.iter().map(RecipeDigest::digest).collect();
        digests.push(recipe.digest());
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
        assert_eq!(recipe.digest(), recipe.clone().digest());
    }
}
