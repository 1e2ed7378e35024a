//! What a client has been sent so far, which must not change from one epoch to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::SchemaRef;
use pba_wire::{EpochRequest, Query as _, stream};

use crate::decoding::text;
use crate::error::ClientError;

/// Most requests that are remembered, of some hundred bytes each. A training run has a few: one for each split.
const REMEMBERED_MAX: usize = 65_536;

/// What decides about samples and their pixels, by key of the metadata; the last covers the others.
const DECIDING: [&str; 3] = [stream::DATASET, stream::SCHEDULE, stream::RECIPE];

/// Values of [`DECIDING`], with their keys.
type Digests = [(&'static str, String); 3];

/// The digests that a client was told for each dataset and request. Its clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipes(Arc<Mutex<HashMap<(String, String), Digests>>>);

impl Recipes {
    /// The digests that were told first for what is asked for, whatever the epoch, its shard and its batches:
    /// those of this schema, if none were.
    ///
    /// # Errors
    /// When there is no room for another request: none is forgotten, since it would not be compared any more.
    pub(crate) fn first(
        &self,
        dataset: &str,
        request: &EpochRequest,
        schema: &SchemaRef,
    ) -> Result<Digests, ClientError> {
        let EpochRequest { shard, batch_size, skip, start, step, .. } = EpochRequest::default();
        let request = EpochRequest { shard, batch_size, skip, start, step, ..request.clone() };
        let key = (dataset.to_owned(), request.to_query());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX && !known.contains_key(&key) {
            return Err(ClientError::TooManyRequests { max: REMEMBERED_MAX });
        }
        let told = || DECIDING.map(|key| (key, text(schema, key).to_owned()));
        Ok(known.entry(key).or_insert_with(told).clone())
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::Schema;

    use super::*;

    fn schema(recipe: &str) -> SchemaRef {
        let metadata = [(stream::RECIPE.to_owned(), recipe.to_owned())];
        SchemaRef::new(Schema::new_with_metadata(Vec::<arrow_schema::Field>::new(), metadata))
    }

    #[test]
    fn no_request_is_forgotten() {
        let recipes = Recipes::default();
        let recipe = |seed: u64, told: &str| {
            let request = EpochRequest { seed, ..EpochRequest::default() };
            recipes.first("shapes", &request, &schema(told)).map(|digests| digests[2].1.clone())
        };
        for seed in 0..REMEMBERED_MAX as u64 {
            assert_eq!(recipe(seed, "first").unwrap(), "first");
        }
        assert_eq!(recipe(0, "other").unwrap(), "first");
        let error = recipe(REMEMBERED_MAX as u64, "first").unwrap_err().to_string();
        assert!(error.contains("65536"), "{error}");
    }
}
