//! TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158) with its wide ranges: one op, at a random
//! magnitude.
//!
//! An image draws the op from [`SPACE`](super::space::SPACE) and a bin of magnitude from 0..=30, each
//! with equal odds.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::error::ScheduleError;
use crate::op::{Op, OpOdds};
use crate::policy::object::parse;
use crate::policy::space::{self, BIN_MAX, SPACE};

/// The policy of TrivialAugment with the wide ranges. There is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrivialAugmentWide;

impl TrivialAugmentWide {
    /// The family's name in files.
    pub(super) const FAMILY: &str = "trivial-augment-wide";

    /// Most ops that are applied to one image.
    pub(super) const CALLS_MAX: usize = 1;

    pub(super) fn ops(&self) -> impl Iterator<Item = Op> {
        space::ops()
    }

    pub(super) fn odds(&self, op: Op) -> OpOdds {
        let magnitude = space::level(op, f64::from(BIN_MAX) / 2.0);
        OpOdds { probability: 1.0 / SPACE.len() as f64, magnitude }
    }

    /// One draw, unless it is torchvision's `Identity`.
    pub(super) fn ops_expected(&self) -> f64 {
        space::ops().count() as f64 / SPACE.len() as f64
    }

    pub(super) fn from_json(text: &str) -> Result<TrivialAugmentWide, ScheduleError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "family")]
            _family: IgnoredAny,
        }
        let Raw { .. } = parse(TrivialAugmentWide::FAMILY, text)?;
        Ok(TrivialAugmentWide)
    }

    pub(super) fn fields(&self) -> Map<String, Value> {
        Map::new()
    }

    pub(super) fn canonical(&self) -> String {
        format!("{} bins", BIN_MAX + 1)
    }
}

impl fmt::Display for TrivialAugmentWide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 of {} ops at a random magnitude", SPACE.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_is_as_likely_at_the_middle_of_its_bins() {
        let policy = TrivialAugmentWide;
        assert_eq!(policy.ops().collect::<Vec<_>>(), space::ops().collect::<Vec<_>>());
        for op in policy.ops() {
            let magnitude = if space::has_magnitude(op) { 4.5 } else { 0.0 };
            assert_eq!(policy.odds(op), OpOdds { probability: 1.0 / 14.0, magnitude });
        }
        assert_eq!(policy.canonical(), "31 bins");
        assert_eq!(policy.to_string(), "1 of 14 ops at a random magnitude");
    }
}
