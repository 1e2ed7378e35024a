//! Sub-policies, as AutoAugment learns them (Cubuk et al. 2019, arXiv 1805.09501): pairs of ops that
//! were found to go well together.
//!
//! An image draws one sub-policy, each with equal odds; then each of its two chances comes true, or
//! not, with its own probability.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::error::ScheduleError;
use crate::op::{MAGNITUDE_MAX, Op, OpOdds, PROBABILITY_MAX};
use crate::policy::object::parse;
use crate::policy::space::has_magnitude;

/// Most sub-policies of a policy: far more than the published ones have.
pub const SUB_POLICIES_MAX: usize = 1000;

/// An op that may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chance {
    /// The op.
    pub op: Op,
    /// Its probability, in tenths: 0..=10.
    pub probability: u8,
    /// Its magnitude, a bin of 0..=9; none for an op that has no magnitude.
    pub magnitude: Option<u8>,
}

/// Two ops that are applied one after the other, each with its own probability.
pub type SubPolicy = [Chance; 2];

/// A checked policy of sub-policies, 1 to [`SUB_POLICIES_MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubPolicies {
    sub_policies: Vec<SubPolicy>,
}

impl SubPolicies {
    /// The family's name in files.
    pub(super) const FAMILY: &str = "sub-policies";

    /// Most ops that are applied to one image.
    pub(super) const CALLS_MAX: usize = 2;

    /// A policy of some sub-policies.
    ///
    /// # Errors
    /// When there are none or too many, or when a chance has an op or a level that is not allowed.
    pub fn new(sub_policies: Vec<SubPolicy>) -> Result<SubPolicies, ScheduleError> {
        if !(1..=SUB_POLICIES_MAX).contains(&sub_policies.len()) {
            return Err(ScheduleError::SubPolicies { found: sub_policies.len(), max: SUB_POLICIES_MAX });
        }
        for (position, chance) in sub_policies
            .iter()
            .enumerate()
            .flat_map(|(position, sub_policy)| sub_policy.iter().map(move |chance| (position, chance)))
        {
            let Chance { op, probability, magnitude } = *chance;
            let refuse = |reason: String| Err(ScheduleError::Chance { position, reason });
            if op == Op::Cutout {
                return refuse(format!("{op} has no bins of magnitude; the other ops do"));
            }
            if probability > PROBABILITY_MAX {
                let allowed = format!("allowed are 0..={PROBABILITY_MAX}, in tenths");
                return refuse(format!("probability {probability} of {op} is out of range; {allowed}"));
            }
            match magnitude {
                Some(bin) if !has_magnitude(op) => {
                    return refuse(format!("{op} has no magnitude, but {bin} is given; allowed is null"));
                }
                Some(bin) if bin > MAGNITUDE_MAX => {
                    let allowed = format!("allowed are 0..={MAGNITUDE_MAX}");
                    return refuse(format!("magnitude {bin} of {op} is out of range; {allowed}"));
                }
                None if has_magnitude(op) => {
                    return refuse(format!("{op} has no magnitude; allowed are 0..={MAGNITUDE_MAX}"));
                }
                _ => {}
            }
        }
        Ok(SubPolicies { sub_policies })
    }

    /// The sub-policies, in order.
    pub fn sub_policies(&self) -> &[SubPolicy] {
        &self.sub_policies
    }

    /// Its ops, in the order of [`Op::ALL`].
    pub(super) fn ops(&self) -> impl Iterator<Item = Op> {
        let chances = self.sub_policies.as_flattened();
        Op::ALL.into_iter().filter(|&op| chances.iter().any(|chance| chance.op == op))
    }

    /// How likely an image is to get the op at all, and its mean bin of magnitude, weighted by
    /// probability.
    pub(super) fn odds(&self, op: Op) -> OpOdds {
        let (mut missed, mut sum, mut weighted) = (0.0, 0.0, 0.0);
        for sub_policy in &self.sub_policies {
            let mut misses = 1.0;
            for chance in sub_policy.iter().filter(|chance| chance.op == op) {
                let probability = f64::from(chance.probability) / f64::from(PROBABILITY_MAX);
                misses *= 1.0 - probability;
                sum += probability;
                weighted += probability * f64::from(chance.magnitude.unwrap_or(0));
            }
            missed += misses;
        }
        let probability = 1.0 - missed / self.sub_policies.len() as f64;
        OpOdds { probability, magnitude: if sum > 0.0 { weighted / sum } else { 0.0 } }
    }

    pub(super) fn ops_expected(&self) -> f64 {
        let chances = self.sub_policies.as_flattened();
        let sum: f64 = chances.iter().map(|chance| f64::from(chance.probability)).sum();
        sum / f64::from(PROBABILITY_MAX) / self.sub_policies.len() as f64
    }

    pub(super) fn from_json(text: &str) -> Result<SubPolicies, ScheduleError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "family")]
            _family: IgnoredAny,
            sub_policies: Vec<[(String, u8, Option<u8>); 2]>,
        }
        let Raw { sub_policies, .. } = parse(SubPolicies::FAMILY, text)?;
        let chance = |(name, probability, magnitude): (String, u8, Option<u8>)| {
            let op = Op::named(&name).ok_or(ScheduleError::UnknownOp(name))?;
            Ok(Chance { op, probability, magnitude })
        };
        let sub_policies =
            sub_policies.into_iter().map(|[first, second]| Ok([chance(first)?, chance(second)?]));
        SubPolicies::new(sub_policies.collect::<Result<_, ScheduleError>>()?)
    }

    /// Its fields in a document: each chance as op, probability and magnitude.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let chance = |chance: &Chance| json!([chance.op, chance.probability, chance.magnitude]);
        let sub_policies: Vec<_> =
            self.sub_policies.iter().map(|sub_policy| sub_policy.each_ref().map(chance)).collect();
        Map::from_iter([("sub_policies".to_owned(), json!(sub_policies))])
    }

    pub(super) fn canonical(&self) -> String {
        let chance = |&Chance { op, probability, magnitude }: &Chance| match magnitude {
            Some(bin) => format!("{op} {probability} {bin}"),
            None => format!("{op} {probability}"),
        };
        self.listed(", ", chance)
    }

    /// The sub-policies in words, with something between the two chances of each.
    fn listed(&self, between: &str, chance: impl Fn(&Chance) -> String) -> String {
        let pairs =
            self.sub_policies.iter().map(|sub_policy| sub_policy.each_ref().map(&chance).join(between));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

/// Each sub-policy: its two ops with their probabilities and magnitudes.
impl fmt::Display for SubPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.listed(" then ", |&Chance { op, probability, magnitude }| {
            let probability = f64::from(probability) / f64::from(PROBABILITY_MAX);
            let magnitude = magnitude.map(|bin| format!("/{bin}")).unwrap_or_default();
            format!("{op} {probability:.1}{magnitude}")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(op: Op, probability: u8, magnitude: impl Into<Option<u8>>) -> Chance {
        Chance { op, probability, magnitude: magnitude.into() }
    }

    #[test]
    fn odds_are_over_sub_policies() {
        let policy = SubPolicies::new(vec![
            [chance(Op::Rotate, 5, 4), chance(Op::Rotate, 5, 8)],
            [chance(Op::Invert, 10, None), chance(Op::Posterize, 0, 3)],
        ])
        .unwrap();
        assert_eq!(policy.ops().collect::<Vec<_>>(), [Op::Rotate, Op::Invert, Op::Posterize]);
        assert_eq!(policy.odds(Op::Rotate), OpOdds { probability: 0.375, magnitude: 6.0 });
        assert_eq!(policy.odds(Op::Invert), OpOdds { probability: 0.5, magnitude: 0.0 });
        let sure = SubPolicies::new(vec![[chance(Op::Rotate, 10, 3), chance(Op::Rotate, 10, 8)]]).unwrap();
        assert_eq!(sure.odds(Op::Rotate), OpOdds { probability: 1.0, magnitude: 5.5 });
        assert_eq!(policy.odds(Op::Posterize), OpOdds { probability: 0.0, magnitude: 0.0 });
        assert_eq!(policy.canonical(), "Rotate 5 4, Rotate 5 8; Invert 10, Posterize 0 3");
        assert_eq!(policy.to_string(), "Rotate 0.5/4 then Rotate 0.5/8; Invert 1.0 then Posterize 0.0/3");
    }

    #[track_caller]
    fn refuse(wrong: Chance, says: &str) {
        let right = [chance(Op::Rotate, 5, 4), chance(Op::Equalize, 5, None)];
        let error = SubPolicies::new(vec![right, [right[0], wrong]]).unwrap_err().to_string();
        assert!(error.contains("sub-policy 1") && error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_chances_are_refused_by_name() {
        refuse(chance(Op::Rotate, 11, 0), "probability 11 of Rotate is out of range; allowed are 0..=10");
        refuse(chance(Op::Rotate, 1, 10), "magnitude 10 of Rotate is out of range; allowed are 0..=9");
        refuse(chance(Op::Rotate, 1, None), "Rotate has no magnitude; allowed are 0..=9");
        refuse(chance(Op::Invert, 1, 3), "Invert has no magnitude, but 3 is given");
        refuse(chance(Op::Cutout, 1, 3), "Cutout has no bins of magnitude");
        let error = SubPolicies::new(Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "0 sub-policies; allowed are 1..=1000");
    }
}
