//! How often each op fired.

use std::ops::{AddAssign, Index};

use pba_schedules::Op;

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

impl Index<Op> for OpCounts {
    type Output = u64;

    fn index(&self, op: Op) -> &u64 {
        &self.0[op as usize]
    }
}

impl AddAssign<&OpCounts> for OpCounts {
    fn add_assign(&mut self, other: &OpCounts) {
        for (count, other) in self.0.iter_mut().zip(other.0) {
            *count += other;
        }
    }
}

impl AddAssign for OpCounts {
    fn add_assign(&mut self, other: OpCounts) {
        *self += &other;
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
        counts += counts;
        assert_eq!((counts[Op::Rotate], counts[Op::Contrast], counts[Op::Cutout]), (2, 2, 0));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(counts.iter().next(), Some((Op::Rotate, 2)));
    }
}
