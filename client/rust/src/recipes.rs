//! What a client has been sent so far, which must not change from one epoch to the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::SchemaRef;
use pba_wire::{EpochRequest, stream};

use crate::decoding::text;

/// Requests that are remembered, of which a training run has a few: one for each split.
const REMEMBERED_MAX: usize = 64;

/// What decides about samples and their pixels, by key of the metadata; the last covers the others.
const DECIDING: [&str; 3] = [stream::DATASET, stream::SCHEDULE, stream::RECIPE];

/// The digests that a client was told for each request. Its clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipes(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Debug)]
struct Entry {
    dataset: String,
    request: EpochRequest,
    /// With their keys.
    digests: [(&'static str, String); 3],
}

impl Recipes {
    /// The digests that were told first for what is asked for, whatever the epoch, its shard and its batches:
    /// those of this schema, if none were.
    pub(crate) fn first(
        &self,
        dataset: &str,
        request: &EpochRequest,
        schema: &SchemaRef,
    ) -> [(&'static str, String); 3] {
        let EpochRequest { shard, batch_size, start, step, .. } = EpochRequest::default();
        let request = EpochRequest { shard, batch_size, start, step, ..request.clone() };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of = |entry: &Entry| entry.dataset == dataset && entry.request == request;
        let known = entries.iter().position(is_of).and_then(|at| entries.remove(at));
        let entry = known.unwrap_or_else(|| Entry {
            dataset: dataset.to_owned(),
            request,
            digests: DECIDING.map(|key| (key, text(schema, key).to_owned())),
        });
        let digests = entry.digests.clone();
        // What was asked for last is forgotten last.
        entries.push_back(entry);
        if entries.len() > REMEMBERED_MAX {
            entries.pop_front();
        }
        digests
    }
}
