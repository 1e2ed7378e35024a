//! From TrivialAugment with the wide ranges to the op of an image.

use pba_schedules::{BIN_MAX, SPACE};
use pba_types::ImageShape;
use pba_types::rng::{Address, below};

use crate::bins::Bins;
use crate::call::{Action, OpCalls, Sign};

/// TrivialAugment laid out for drawing from it.
#[derive(Clone, Debug)]
pub(crate) struct TrivialAugmentWalk {
    /// Of each op of the space, at each bin: its parameter, with plus and with minus.
    parameters: Vec<[[f64; 2]; BIN_MAX as usize + 1]>,
}

impl TrivialAugmentWalk {
    pub(super) fn new(shape: ImageShape) -> TrivialAugmentWalk {
        let parameters = SPACE.iter().map(|op| {
            std::array::from_fn(|bin| match op {
                Some(op) => Bins::TrivialAugmentWide.parameters(*op, bin as u8, shape),
                None => [0.0; 2],
            })
        });
        TrivialAugmentWalk { parameters: parameters.collect() }
    }

    /// The ops of the sample at an address.
    pub(super) fn draw(&self, policy: &Address, calls: &mut OpCalls) {
        calls.clear(true);
        let [which, bin, sign, _] = policy.block(0);
        let which = below(which, SPACE.len() as u32) as usize;
        if let Some(op) = SPACE[which] {
            let bin = below(bin, u32::from(BIN_MAX) + 1);
            let parameter = Sign::drawn(sign).select(&self.parameters[which][bin as usize]);
            calls.push(Action { op, parameter, centre: (0, 0) });
        }
    }
}
