//! A buffer in pieces, each of which one worker owns at a time, until all are written and together again.

use crate::stream::buffers::Divisible;

/// The pieces of a buffer: of equal length but for the last, and what comes after them.
pub(crate) struct Pieces<B> {
    /// Unless a worker has it.
    pieces: Vec<Option<B>>,
    rest: B,
}

impl<B: Divisible> Pieces<B> {
    /// Cuts the first `bytes` bytes of a buffer into `count` pieces of `piece_bytes` bytes, the last of what is left.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn cut(mut buffer: B, bytes: usize, piece_bytes: usize, count: usize) -> Pieces<B> {
        let rest = buffer.split_off(bytes);
        // From behind, so that each is cut off the end of what is left.
        let mut pieces: Vec<_> =
            (1..count).rev().map(|piece| Some(buffer.split_off(piece * piece_bytes))).collect();
        pieces.push(Some(buffer));
        pieces.reverse();
        Pieces { pieces, rest }
    }

    /// A piece, which now belongs to its taker.
    ///
    /// # Panics
    /// When it is taken already.
    pub(crate) fn take(&mut self, piece: usize) -> B {
        self.pieces[piece].take().expect("a part is done once")
    }

    /// Puts back a piece that is written.
    pub(crate) fn put(&mut self, piece: usize, bytes: B) {
        self.pieces[piece] = Some(bytes);
    }

    /// What comes after the pieces.
    pub(crate) fn rest(&mut self) -> &mut B {
        &mut self.rest
    }

    /// The whole buffer.
    ///
    /// # Panics
    /// When a piece is not there.
    pub(crate) fn join(self) -> B {
        let mut pieces = self.pieces.into_iter().map(|piece| piece.expect("its part is done"));
        let mut buffer = pieces.next().expect("there is one at least");
        pieces.for_each(|piece| buffer.unsplit(piece));
        buffer.unsplit(self.rest);
        buffer
    }
}
