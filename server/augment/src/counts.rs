//! How often each op fired.

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
