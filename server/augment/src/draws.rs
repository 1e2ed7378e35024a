//! The random draws of a sample: a contract.
//!
//! Every draw has an address and never moves: it is one 32-bit word of
//! [`Address { seed, purpose, epoch, item: sample index }`](crate::rng::Address), at a fixed block
//! and lane. So a sample's draws depend on nothing but the seed, the epoch and its index, and a
//! word that is not needed costs nothing.
//!
//! Those of purpose Policy are of the paper's pairs; the tables of other families follow. The search epoch
//! comes before the family is known, and is where it is for all.
//!
//! | purpose | block | lane | decides | how |
//! | --- | --- | --- | --- | --- |
//! | Policy | 0 | 0 | `count`, how many ops at most | `tenths(w, 2)`: 0; else `tenths(w, 5)`: 1; else 2 |
//! | Policy | 0 | 1 | the first op, of the n slots that fire | `below(w, n)`, counting from slot 0 |
//! | Policy | 0 | 2 | the second op, of the other n - 1 | `below(w, n - 1)`, counting from slot 0 |
//! | Policy | 0 | 3 | the search epoch, where each image draws one of S | `below(w, S)` |
//! | Policy | 1 | 0, 1 | sign of the first op, of the second | `below(w, 2)`: 0 is plus, 1 is minus |
//! | Policy | 2 | 0, 1 | Cutout's centre, when it is the first op: column, row | `below(w, width)`, `below(w, height)` |
//! | Policy | 2 | 2, 3 | Cutout's centre, when it is the second op: column, row | the same |
//! | Policy | 4 + floor(s / 4) | s mod 4 | whether slot s fires | `tenths(w, probability)` |
//! | Base | 0 | 0, 1 | corner of the crop in the image padded by P: column, row | `below(w, 2 P)` |
//! | Base | 0 | 2 | flip | `below(w, 2)`: 1 flips |
//! | Base | 1 | 0, 1 | centre of the cutout: column, row | `below(w, width)`, `below(w, height)` |
//! | Frame | t | 0 | random resized crop, try t of 0..10: the box's share of the area | `0.08 + 0.92 w / 2^32` |
//! | Frame | t | 1 | its ratio of width to height | `(4/3)^(w / 2^31 - 1)` |
//! | Frame | t | 2, 3 | its first column, first row | `below(w, width - box width + 1)`, likewise |
//!
//! [`below`] and [`tenths`](crate::rng::tenths) map a word to a bounded integer and to a decision. Block 3 and the lanes not named are spare.
//!
//! # Other families
//! Of purpose Policy, with the ops of [`SPACE`](pba_schedules::SPACE) in its order:
//!
//! | family | block | lane | decides | how |
//! | --- | --- | --- | --- | --- |
//! | sub-policies | 0 | 0 | which of the n sub-policies | `below(w, n)` |
//! | | 0 | 1, 2 | whether its first op is applied, its second | `tenths(w, probability)` |
//! | | 1 | 0, 1 | sign of its first op, of its second | `below(w, 2)`: 0 is plus, 1 is minus |
//! | RandAugment | 1 + i | 0 | op i | `below(w, 14)` |
//! | | 1 + i | 1 | its sign | `below(w, 2)` |
//! | TrivialAugment | 0 | 0 | the op | `below(w, 14)` |
//! | | 0 | 1 | its bin of magnitude | `below(w, 31)` |
//! | | 0 | 2 | its sign | `below(w, 2)` |
//! | all | 0 | 3 | the search epoch, as above | |
//!
//! An `Identity` is no op. The draws of purpose Base are the same for all families, and mean the same: the
//! crop, the flip, and the cutout's centre in the image that comes out. Only their order with the policy is
//! the family's: [`Base`].
//!
//! # Why this is the walk of the paper
//! The paper draws `count`, walks the slots in a fresh random order, lets each slot fire with its
//! own probability, applies those that fire, and stops once `count` have. Whether a slot fires
//! does not depend on its place in the order, so nothing changes when all slots are asked before
//! the walk. Then the walk applies the first `min(count, n)` of the n slots that fire, in the order
//! of the walk; and a uniform order of all slots, restricted to those that fire, is a uniform order
//! of these. Its first is any of the n with equal odds, its second any of the others. That takes
//! two draws instead of a shuffle of 30. A test holds it against the paper's words.

use pba_types::ImageShape;

use crate::base::Base;
use pba_types::rng::below;

/// The draws of the base augmentation for one image. A step that the base lacks is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaseDraws {
    /// Column and row of the crop's corner in the padded image: 0..=2P-1 for a padding of P.
    pub crop: (u32, u32),
    /// Whether to mirror left to right.
    pub flip: bool,
    /// Column and row of the cutout's centre, after crop and flip.
    pub cutout: (u32, u32),
}

impl BaseDraws {
    /// The draws from the words of the blocks of purpose `Base`.
    #[inline]
    pub(crate) fn from_blocks(block: impl Fn(u32) -> [u32; 4], base: &Base, shape: ImageShape) -> BaseDraws {
        let mut draws = BaseDraws::default();
        if base.pad_crop.is_some() || base.flip {
            let [column, row, flip, _] = block(0);
            if let Some(padding) = base.pad_crop {
                draws.crop = (below(column, 2 * padding), below(row, 2 * padding));
            }
            draws.flip = base.flip && below(flip, 2) == 1;
        }
        if base.cutout.is_some() {
            let [column, row, ..] = block(1);
            draws.cutout = (below(column, shape.width), below(row, shape.height));
        }
        draws
    }
}
