//! The parameters of `GET /v1/datasets/{dataset}/epochs/{epoch}/batches`.

use pba_types::SplitName;
use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};

use crate::query::{boolean, integer, optional, shard, split, text};

crate::query! {
    /// A request for one epoch, each parameter as it was given.
    ///
    /// Types and ranges that do not depend on the server are checked here; the server checks the rest.
    pub struct EpochRequest {
        /// Split of the dataset: train, val or test
        split: SplitName = SplitName::Train, split();
        /// Name or digest of a schedule, or a policy (autoaugment-cifar10, autoaugment-svhn,
        /// autoaugment-imagenet, randaugment:N:M, trivial-augment-wide), or none (base augmentation only), or
        /// identity (untouched pixels) [default: none]
        schedule: Option<String> = None, optional(text());
        /// Epochs of the whole training run, to which the schedule is stretched [default: the schedule's own;
        /// any number where the policy never changes]
        epochs: Option<u32> = None, optional(integer(1..=EPOCHS_MAX));
        /// 60 comma-separated integers instead of a schedule: probability and magnitude of each slot
        policy: Option<String> = None, optional(text());
        /// How the schedule is altered to evaluate it: scheduled, flatten, shuffled or final
        /// [default: scheduled]
        ablation: Option<String> = None, optional(text());
        /// Images per batch
        batch_size: u32 = 128, integer(1..=BATCH_SIZE_MAX);
        /// Seed of every random decision
        seed: u64 = 0, integer(0..=u64::MAX);
        /// Whether the order of samples is a seeded permutation [default: true for train]
        shuffle: Option<bool> = None, optional(boolean());
        /// Shard of the epoch to send, as i/n
        shard: (u32, u32) = (0, 1), shard();
        /// Samples left out at the beginning of the epoch's order, before the rest is cut into shards and batches:
        /// those that were read with other shards or batches
        skip: u64 = 0, integer(0..=u64::MAX);
        /// First batch to send
        start: u64 = 0, integer(0..=u64::MAX);
        /// Send every step-th batch
        step: u64 = 1, integer(1..=u64::MAX);
        /// Drop the last short batch
        drop_last: bool = false, boolean();
        /// Base augmentation, such as pad_crop:4,flip,cutout:16 or random_resized_crop:224,flip, or identity;
        /// pad_crop and flip come after a learned policy, and before one by name [default: the dataset's own]
        base: Option<String> = None, optional(text());
    }
}

/// Most images on a contact sheet: 32 rows of 32.
const PREVIEW_MAX: u32 = 1024;

crate::query! {
    /// Parameters of a contact sheet of an epoch, besides the [`EpochRequest`].
    pub struct Preview {
        /// Images on the sheet
        n: u32 = 64, integer(1..=PREVIEW_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    #[test]
    fn requests_round_trip() {
        let query = "split=test&schedule=cifar10-pba&epochs=1800&ablation=flatten&batch_size=7&seed=18446744073709551615\
                     &shuffle=false&shard=2%2F3&skip=30&start=4&step=5&drop_last=true&base=pad_crop%3A4%2Cflip";
        let request = EpochRequest::from_query(query).unwrap();
        assert_eq!(request.to_query(), query);
        assert_eq!(request.shard, (2, 3));
        assert_eq!(EpochRequest::from_query("").unwrap(), EpochRequest::default());
        assert_eq!(EpochRequest::default().to_query(), "");
    }

    #[track_caller]
    fn refuse(query: &str, parameter: &str, says: &str) {
        let error = EpochRequest::from_query(query).unwrap_err();
        assert_eq!(error.parameter, parameter);
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        refuse("batch_size=0", "batch_size", "1..=65536");
        refuse("batch_size=65537", "batch_size", "out of range");
        refuse("batch_size=", "batch_size", "not an integer");
        refuse("batch_size=+5", "batch_size", "not an integer");
        refuse("batch_size=1e3", "batch_size", "not an integer");
        refuse("batchsize=5", "batchsize", "did you mean \"batch_size\"?");
        refuse("zzzzzzzz=5", "zzzzzzzz", "unknown parameter; allowed: split");
        refuse("seed=-1", "seed", "out of range");
        refuse("seed=18446744073709551616", "seed", "out of range");
        refuse("shuffle=yes", "shuffle", "true or false");
        refuse("shard=1/1", "shard", "out of range");
        refuse("shard=0/0", "shard", "out of range");
        refuse("shard=0", "shard", "not a shard");
        refuse("shard=-1/2", "shard", "not a shard");
        refuse("step=0", "step", "out of range");
        refuse("skip=-1", "skip", "out of range");
        refuse("split=validation", "split", "train, val or test");
        refuse("seed=1&seed=2", "seed", "given twice");
    }
}
