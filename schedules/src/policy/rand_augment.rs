//! RandAugment (Cubuk et al. 2020, arXiv 1909.13719): some ops, all at one magnitude.
//!
//! An image draws each op from [`SPACE`], independently and with equal odds, so it may draw one twice.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::error::ScheduleError;
use crate::op::{Op, OpOdds};
use crate::policy::object::parse;
use crate::policy::space::{self, BIN_MAX, RAND_AUGMENT_OPS_MAX, SPACE};

/// A checked policy of RandAugment, named `randaugment:N:M` after its ops and their magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RandAugment {
    ops: u8,
    magnitude: u8,
}

impl RandAugment {
    /// The family's name in files.
    pub(super) const FAMILY: &str = "rand-augment";

    /// Most ops that are applied to one image.
    pub(super) const CALLS_MAX: usize = RAND_AUGMENT_OPS_MAX as usize;

    /// What its names begin with.
    const NAME: &str = "randaugment";

    /// The policy that draws so many ops, 1..=[`RAND_AUGMENT_OPS_MAX`], at a bin of magnitude,
    /// 0..=[`BIN_MAX`].
    ///
    /// # Errors
    /// When one is out of range.
    pub fn new(ops: u8, magnitude: u8) -> Result<RandAugment, ScheduleError> {
        let policy = RandAugment { ops, magnitude };
        if (1..=RAND_AUGMENT_OPS_MAX).contains(&ops) && magnitude <= BIN_MAX {
            return Ok(policy);
        }
        Err(ScheduleError::RandAugment { name: policy.name() })
    }

    /// The policy of a name; nothing for a name that cannot be one of RandAugment's.
    ///
    /// # Errors
    /// When the name is `randaugment` without N and M, or with others than are allowed.
    pub fn named(name: &str) -> Option<Result<RandAugment, ScheduleError>> {
        let rest = name.strip_prefix(RandAugment::NAME)?;
        if !rest.is_empty() && !rest.starts_with(':') {
            return None;
        }
        let refused = || ScheduleError::RandAugment { name: name.to_owned() };
        // A number has one spelling, so that a policy has one name.
        let number = |text: &str| text.parse().ok().filter(|number: &u8| number.to_string() == text);
        let numbers = rest.strip_prefix(':').and_then(|rest| rest.split_once(':'));
        let numbers = numbers.and_then(|(ops, magnitude)| Some((number(ops)?, number(magnitude)?)));
        Some(numbers.ok_or_else(refused).and_then(|(ops, magnitude)| RandAugment::new(ops, magnitude)))
    }

    /// Its name: `randaugment:N:M`.
    pub fn name(&self) -> String {
        format!("{}:{}:{}", RandAugment::NAME, self.ops, self.magnitude)
    }

    /// How many ops an image draws.
    pub fn count(&self) -> u8 {
        self.ops
    }

    /// The bin of magnitude of each of them.
    pub fn magnitude(&self) -> u8 {
        self.magnitude
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = Op> {
        space::ops()
    }

    /// How likely an image is to draw the op at all.
    pub(super) fn odds(&self, op: Op) -> OpOdds {
        let missed = (1.0 - 1.0 / SPACE.len() as f64).powi(i32::from(self.ops));
        OpOdds { probability: 1.0 - missed, magnitude: space::level(op, self.magnitude.into()) }
    }

    /// The draws that are not torchvision's `Identity`.
    pub(super) fn ops_expected(&self) -> f64 {
        f64::from(self.ops) * space::ops().count() as f64 / SPACE.len() as f64
    }

    pub(super) fn from_json(text: &str) -> Result<RandAugment, ScheduleError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "family")]
            _family: IgnoredAny,
            num_ops: u8,
            magnitude: u8,
        }
        let Raw { num_ops, magnitude, .. } = parse(RandAugment::FAMILY, text)?;
        RandAugment::new(num_ops, magnitude)
    }

    pub(super) fn fields(&self) -> Map<String, Value> {
        Map::from_iter([
            ("num_ops".to_owned(), json!(self.ops)),
            ("magnitude".to_owned(), json!(self.magnitude)),
        ])
    }

    pub(super) fn canonical(&self) -> String {
        format!("{} {}", self.ops, self.magnitude)
    }
}

impl fmt::Display for RandAugment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ops, space) = (self.ops, SPACE.len());
        write!(f, "{ops} of {space} ops at magnitude {} of {BIN_MAX}", self.magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_both_numbers() {
        for (ops, magnitude) in [(1, 0), (2, 9), (8, 30)] {
            let policy = RandAugment::new(ops, magnitude).unwrap();
            assert_eq!((policy.count(), policy.magnitude(), policy.ops().count()), (ops, magnitude, 13));
            assert_eq!(policy.name(), format!("randaugment:{ops}:{magnitude}"));
            assert_eq!(policy.to_string(), format!("{ops} of 14 ops at magnitude {magnitude} of 30"));
            assert_eq!(policy.canonical(), format!("{ops} {magnitude}"));
            assert_eq!(RandAugment::named(&policy.name()), Some(Ok(policy)));
        }
        for other in ["", "mine", "randaugmented", "randaugment-2-9", "RandAugment:2:9"] {
            assert_eq!(RandAugment::named(other), None, "{other:?}");
        }
        for wrong in [
            "randaugment",
            "randaugment:",
            "randaugment:2",
            "randaugment:2:",
            "randaugment:0:9",
            "randaugment:9:9",
            "randaugment:2:31",
            "randaugment:2:300",
            "randaugment:02:9",
            "randaugment:2:+9",
            "randaugment:2:9:1",
            "randaugment:2:-1",
        ] {
            let error = RandAugment::named(wrong).unwrap().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{wrong:?}")) || error.contains(wrong), "{error}");
            assert!(error.contains("1..=8") && error.contains("0..=30"), "{error}");
        }
    }

    #[test]
    fn odds_are_those_of_drawing_with_replacement() {
        let odds = RandAugment::new(2, 10).unwrap().odds(Op::Rotate);
        assert!((odds.probability - 27.0 / 196.0).abs() < 1e-12, "{odds:?}");
        assert_eq!(odds.magnitude, 3.0);
        assert_eq!(RandAugment::new(2, 10).unwrap().odds(Op::Equalize).magnitude, 0.0);
    }
}
