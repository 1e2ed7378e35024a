//! Ops on one image, as data; and how many there were of each op.

use pba_schedules::{Op, Pairs, Policy};
use pba_types::rng::below;

/// Direction of an op that has one: Rotate, TranslateX, TranslateY, ShearX and ShearY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// As the magnitude says.
    Plus,
    /// The other way.
    Minus,
}

impl Sign {
    /// From a word of random bits.
    #[inline]
    pub(crate) fn drawn(word: u32) -> Sign {
        if below(word, 2) == 0 { Sign::Plus } else { Sign::Minus }
    }

    /// The parameters of an op, by the position of its sign.
    #[inline]
    pub(crate) fn select(self, parameters: &[f64; 2]) -> f64 {
        parameters[usize::from(self == Sign::Minus)]
    }

    pub(crate) fn of(self, value: i32) -> i32 {
        match self {
            Sign::Plus => value,
            Sign::Minus => -value,
        }
    }
}

/// An op at a magnitude level of the paper's, with everything that fixes what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpCall {
    /// Which op.
    pub op: Op,
    /// Magnitude level: 0..=9; what it means is up to the op.
    pub magnitude: u8,
    /// Direction, for the ops that have one; the others ignore it.
    pub sign: Sign,
    /// Column and row about which Cutout erases; the other ops ignore it.
    pub centre: (u32, u32),
}

/// An op with its physical parameter: what is done to an image, whichever family of policies says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Action {
    /// Which op.
    pub op: Op,
    /// By op, as its function in [`ops`](crate::ops) takes it; 0 where it takes none:
    ///
    /// | op | parameter |
    /// | --- | --- |
    /// | Rotate | degrees, counter-clockwise |
    /// | TranslateX, TranslateY | pixels, to the left or up |
    /// | ShearX, ShearY | slope, in pixels per pixel |
    /// | Brightness, Color, Contrast, Sharpness | factor, in single precision |
    /// | Posterize | bits that stay |
    /// | Solarize | least value that is inverted |
    /// | Cutout | side of the square, in pixels |
    pub parameter: f64,
    /// Column and row about which Cutout erases; the other ops ignore it.
    pub centre: (u32, u32),
}

impl From<&Action> for Action {
    fn from(action: &Action) -> Action {
        *action
    }
}

/// The ops that a policy draws for an image, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpCalls {
    actions: [Action; Policy::CALLS_MAX],
    /// Where they are of pairs: each with its level.
    calls: [OpCall; Pairs::CALLS_MAX],
    len: usize,
    /// Whether crop and flip come before them.
    follows_base: bool,
}

impl OpCalls {
    /// No ops, for a policy of pairs.
    pub(crate) const NONE: OpCalls = {
        let action = Action { op: Op::Rotate, parameter: 0.0, centre: (0, 0) };
        let call = OpCall { op: Op::Rotate, magnitude: 0, sign: Sign::Plus, centre: (0, 0) };
        let (actions, calls) = ([action; Policy::CALLS_MAX], [call; Pairs::CALLS_MAX]);
        OpCalls { actions, calls, len: 0, follows_base: false }
    };

    /// Forgets them; those that follow come after crop and flip, or before.
    #[inline]
    pub(crate) fn clear(&mut self, follows_base: bool) {
        (self.len, self.follows_base) = (0, follows_base);
    }

    /// One more op of a policy of pairs, whose call means this parameter.
    #[inline]
    pub(crate) fn push_call(&mut self, call: OpCall, parameter: f64) {
        self.calls[self.len] = call;
        self.push(Action { op: call.op, parameter, centre: call.centre });
    }

    /// One more op.
    #[inline]
    pub(crate) fn push(&mut self, action: Action) {
        self.actions[self.len] = action;
        self.len += 1;
    }

    /// The calls that a policy of pairs draws.
    ///
    /// # Panics
    /// When a policy of another family drew them: its magnitudes are no levels of the paper's.
    pub fn as_slice(&self) -> &[OpCall] {
        assert!(!self.follows_base, "the calls of a policy of pairs; others have actions only");
        &self.calls[..self.len]
    }

    /// What is done to the image, whichever family the policy is of.
    #[inline]
    pub fn actions(&self) -> &[Action] {
        &self.actions[..self.len]
    }

    /// Whether crop and flip come before the ops: with every family but the paper's pairs.
    #[inline]
    pub(crate) fn follows_base(&self) -> bool {
        self.follows_base
    }
}

/// How often each op fired, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts([u64; Op::ALL.len()]);

impl OpCounts {
    /// One more of `op`.
    pub(crate) fn add(&mut self, op: Op) {
        self.0[op as usize] += 1;
    }

    /// Every op with its count, in the order of [`Op::ALL`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Op, u64)> + '_ {
        Op::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_by_op() {
        let mut counts = OpCounts::default();
        counts.add(Op::Rotate);
        counts.add(Op::Contrast);
        counts.add(Op::Rotate);
        let counted: Vec<_> = counts.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(Op::Rotate, 2), (Op::Contrast, 1)]);
    }
}
