//! From sub-policies to the ops of an image.

use pba_schedules::{Chance, SubPolicies};
use pba_types::ImageShape;
use pba_types::rng::{Address, below, tenths};

use crate::bins::Bins;
use crate::call::{Action, OpCalls, Sign};

/// Sub-policies laid out for drawing from them.
#[derive(Clone, Debug)]
pub(crate) struct SubPoliciesWalk {
    /// Each chance with the parameter of its op, with plus and with minus.
    sub_policies: Vec<[(Chance, [f64; 2]); 2]>,
}

impl SubPoliciesWalk {
    pub(super) fn new(policy: &SubPolicies, shape: ImageShape) -> SubPoliciesWalk {
        let laid_out = |chance: Chance| {
            (chance, Bins::AutoAugment.parameters(chance.op, chance.magnitude.unwrap_or(0), shape))
        };
        let sub_policies = policy.sub_policies().iter().map(|sub_policy| sub_policy.map(laid_out));
        SubPoliciesWalk { sub_policies: sub_policies.collect() }
    }

    /// The ops of the sample at an address.
    pub(super) fn draw(&self, policy: &Address, calls: &mut OpCalls) {
        calls.clear(true);
        let [which, chances @ .., _] = policy.block(0);
        let signs = policy.block(1);
        let sub_policy = &self.sub_policies[below(which, self.sub_policies.len() as u32) as usize];
        for (position, (Chance { op, probability, .. }, parameters)) in sub_policy.iter().enumerate() {
            if tenths(chances[position], *probability) {
                let parameter = Sign::drawn(signs[position]).select(parameters);
                calls.push(Action { op: *op, parameter, centre: (0, 0) });
            }
        }
    }
}
