//! From a policy to the ops of an image ([`draws`](crate::draws)): a file for each family.

mod pairs;
mod rand_augment;
mod sub_policies;
mod trivial_augment;

use pba_schedules::Policy;
use pba_types::ImageShape;
use pba_types::rng::{Address, Purpose};

use crate::base::Base;
use crate::call::OpCalls;
use crate::draws::BaseDraws;
use crate::simd::level::Level;
use pairs::PairsWalk;
use rand_augment::RandAugmentWalk;
use sub_policies::SubPoliciesWalk;
use trivial_augment::TrivialAugmentWalk;

/// A policy laid out for drawing from it. Here is the only match over families of policies.
#[derive(Clone, Debug)]
pub(crate) enum Walk {
    Pairs(PairsWalk),
    SubPolicies(SubPoliciesWalk),
    RandAugment(RandAugmentWalk),
    TrivialAugmentWide(TrivialAugmentWalk),
}

impl Walk {
    /// Lays a policy out for images of a shape.
    pub(crate) fn new(policy: &Policy, shape: ImageShape) -> Walk {
        match policy {
            Policy::Pairs(pairs) => Walk::Pairs(PairsWalk::new(pairs)),
            Policy::SubPolicies(policy) => Walk::SubPolicies(SubPoliciesWalk::new(policy, shape)),
            Policy::RandAugment(policy) => Walk::RandAugment(RandAugmentWalk::new(*policy, shape)),
            Policy::TrivialAugmentWide(_) => Walk::TrivialAugmentWide(TrivialAugmentWalk::new(shape)),
        }
    }

    /// All draws of the sample at `policy`, whose purpose is `Policy`: its ops, which replace `calls`, and its
    /// base augmentation.
    #[inline]
    pub(crate) fn draw(
        &self,
        level: Level,
        policy: &Address,
        base: &Base,
        shape: ImageShape,
        calls: &mut OpCalls,
    ) -> BaseDraws {
        match self {
            Walk::Pairs(walk) => return walk.draw(level, policy, base, shape, calls),
            Walk::SubPolicies(walk) => walk.draw(policy, calls),
            Walk::RandAugment(walk) => walk.draw(policy, calls),
            Walk::TrivialAugmentWide(walk) => walk.draw(policy, calls),
        }
        let address = Address { purpose: Purpose::Base, ..*policy };
        BaseDraws::from_blocks(|block| address.block(block), base, shape)
    }
}
