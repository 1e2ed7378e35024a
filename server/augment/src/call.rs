//! One op on one image, as data.

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
    /// Magnitude level: 0..=9. what it means is the op's.
    pub magnitude: u8,
    /// Direction, for the ops that have one; the others ignore it.
    pub sign: Sign,
    /// Column and row about which Cutout erases; the other ops ignore it.
    pub centre: (u32, u32),
}
