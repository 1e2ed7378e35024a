//! From a policy of RandAugment to the ops of an image.

use pba_schedules::{Op, RandAugment, SPACE};
use pba_types::ImageShape;
use pba_types::rng::{Address, below};

use crate::bins::Bins;
use crate::call::{Action, OpCalls, Sign};

/// RandAugment laid out for drawing from it.
#[derive(Clone, Debug)]
pub(crate) struct RandAugmentWalk {
    policy: RandAugment,
    /// The space, each op with its parameter, with plus and with minus.
    space: [Option<(Op, [f64; 2])>; SPACE.len()],
}

impl RandAugmentWalk {
    pub(super) fn new(policy: RandAugment, shape: ImageShape) -> RandAugmentWalk {
        let laid_out = |op| (op, Bins::RandAugment.parameters(op, policy.magnitude(), shape));
        RandAugmentWalk { policy, space: SPACE.map(|op| op.map(laid_out)) }
    }

    /// The ops of the sample at an address.
    pub(super) fn draw(&self, policy: &Address, calls: &mut OpCalls) {
        calls.clear(true);
        for position in 0..self.policy.count() {
            let [which, sign, ..] = policy.block(1 + u32::from(position));
            if let Some((op, parameters)) = &self.space[below(which, SPACE.len() as u32) as usize] {
                let parameter = Sign::drawn(sign).select(parameters);
                calls.push(Action { op: *op, parameter, centre: (0, 0) });
            }
        }
    }
}
