//! One op on one image, as data; and how many there were of each op.

use pba_schedules::Op;

/// Direction of an op that has one: Rotate, TranslateX, TranslateY, ShearX and ShearY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// As the magnitude says.
    Plus,
    /// The other way.
    Minus,
}

impl Sign {
    pub(crate) fn of(self, value: i32) -> i32 {
        match self {
            Sign::Plus => value,
            Sign::Minus => -value,
        }
    }
}

/// An op with everything that fixes what it does.
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
