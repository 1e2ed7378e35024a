//! A policy: which ops may be applied to an image, how probably and how strongly.
//!
//! Policies come in families, each with a file of its own and a variant of [`Policy`]; they are listed
//! here once.

mod object;
pub(crate) mod pairs;
pub(crate) mod rand_augment;
pub(crate) mod space;
mod sub_policies;
mod trivial_augment;

use std::fmt;

use serde_json::{Map, Value};

use crate::error::ScheduleError;
use crate::op::{Op, OpOdds};

pub use crate::policy::pairs::{Pairs, Slot};
pub use crate::policy::rand_augment::RandAugment;
pub use crate::policy::space::{BIN_MAX, RAND_AUGMENT_OPS_MAX, SPACE};
pub use crate::policy::sub_policies::{Chance, SUB_POLICIES_MAX, SubPolicies, SubPolicy};
pub use crate::policy::trivial_augment::TrivialAugmentWide;

/// Declares the families: the type of each, which reads and writes itself.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident,)*) => {
        /// A checked policy, of one of the families.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Policy {
            $($(#[$doc])* $family($family),)*
        }

        impl Policy {
            /// Names of the families, as they stand in files.
            pub const FAMILIES: &[&str] = &[$($family::FAMILY),*];

            /// Most ops that a policy of any family applies to one image.
            pub const CALLS_MAX: usize = {
                let mut most = 0;
                $(if $family::CALLS_MAX > most {
                    most = $family::CALLS_MAX;
                })*
                most
            };

            /// Most ops that it applies to one image, as far as its family says.
            pub fn calls_max(&self) -> usize {
                match self {
                    $(Policy::$family(_) => $family::CALLS_MAX,)*
                }
            }

            /// The name of its family, one of [`Policy::FAMILIES`].
            pub fn family(&self) -> &'static str {
                match self {
                    $(Policy::$family(_) => $family::FAMILY,)*
                }
            }

            /// The ops that it may apply, each once, in order.
            pub fn ops(&self) -> Vec<Op> {
                match self {
                    $(Policy::$family(policy) => policy.ops().collect(),)*
                }
            }

            /// How often and how strongly it applies one of its [`Policy::ops`].
            pub fn odds(&self, op: Op) -> OpOdds {
                match self {
                    $(Policy::$family(policy) => policy.odds(op),)*
                }
            }

            /// How many ops an image gets on average.
            pub fn ops_expected(&self) -> f64 {
                match self {
                    $(Policy::$family(policy) => policy.ops_expected(),)*
                }
            }

            /// What affects pixels, in one line: the digest of a schedule covers it.
            pub(crate) fn canonical(&self) -> String {
                match self {
                    $(Policy::$family(policy) => policy.canonical(),)*
                }
            }

            /// Its fields in a document, without its family.
            pub(crate) fn fields(&self) -> Map<String, Value> {
                match self {
                    $(Policy::$family(policy) => policy.fields(),)*
                }
            }

            /// A policy from its family and its object in a document, which says the family, too.
            ///
            /// # Errors
            /// When the family is unknown, or the object is not a policy of it.
            pub(crate) fn from_json(family: &str, text: &str) -> Result<Policy, ScheduleError> {
                match family {
                    $($family::FAMILY => $family::from_json(text).map(Policy::$family),)*
                    _ => Err(ScheduleError::UnknownFamily {
                        name: family.to_owned(),
                        known: Policy::FAMILIES,
                    }),
                }
            }
        }

        /// What it may do, in words; nothing when it does nothing.
        impl fmt::Display for Policy {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Policy::$family(policy) => policy.fmt(f),)*
                }
            }
        }
    };
}

families! {
    /// The paper's: two chances for each op, of which up to two ops come true.
    Pairs,
    /// AutoAugment's: one of some sub-policies, each of two ops with their probabilities.
    SubPolicies,
    /// RandAugment's: some ops at one magnitude.
    RandAugment,
    /// TrivialAugment's: one op at a random magnitude of the wide ranges.
    TrivialAugmentWide,
}

impl Policy {
    /// A policy of pairs, as [`Pairs::from_hyperparameters`].
    ///
    /// # Errors
    /// As [`Pairs::from_hyperparameters`].
    pub fn from_hyperparameters(ops: &[Op], values: &[u8]) -> Result<Policy, ScheduleError> {
        Pairs::from_hyperparameters(ops, values).map(Policy::Pairs)
    }

    /// The policy of pairs that never does anything: every level is 0.
    ///
    /// # Errors
    /// When `ops` is empty or names an op twice.
    pub fn zero(ops: &[Op]) -> Result<Policy, ScheduleError> {
        Policy::from_hyperparameters(ops, &vec![0; 4 * ops.len()])
    }

    /// The pairs, when it is a policy of that family.
    pub fn as_pairs(&self) -> Option<&Pairs> {
        match self {
            Policy::Pairs(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The slots of a policy of pairs, in order; none for another family.
    pub fn slots(&self) -> &[Slot] {
        self.as_pairs().map_or(&[], Pairs::slots)
    }

    /// The flat integers `[p0, m0, p1, m1, ...]` of a policy of pairs; none for another family.
    pub fn hyperparameters(&self) -> Vec<u8> {
        self.as_pairs().map_or(Vec::new(), Pairs::hyperparameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only policies of pairs have, others do not.
    #[test]
    fn a_policy_of_another_family_has_no_slots() {
        let pairs = Policy::from_hyperparameters(&[Op::Rotate], &[1, 2, 3, 4]).unwrap();
        assert_eq!(pairs.hyperparameters(), [1, 2, 3, 4]);
        assert_eq!(pairs.slots(), pairs.as_pairs().unwrap().slots());
        let other = Policy::TrivialAugmentWide(TrivialAugmentWide);
        assert_eq!((other.as_pairs(), other.slots(), other.hyperparameters()), (None, &[][..], vec![]));
    }

    #[test]
    fn wrong_ops_are_refused() {
        assert_eq!(Policy::zero(&[]), Err(ScheduleError::NoOps));
        let twice = [Op::Color, Op::Rotate, Op::Invert, Op::Rotate];
        assert_eq!(Policy::zero(&twice), Err(ScheduleError::RepeatedOp { op: Op::Rotate }));
    }
}
