//! Memory that a worker keeps between images.

use crate::image::Rgba;
use crate::ops::Table;
use crate::resize::Resizing;
use crate::simd::Level;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512::Shown;

/// Buffers that rendering reuses: one per worker thread. What it holds never affects a result.
#[derive(Clone, Debug)]
pub struct Scratch {
    level: Level,
    /// The working image of [`render_image`](crate::render_image).
    pub(crate) image: Rgba,
    /// Where an op that cannot work in place writes, before it swaps.
    pub(crate) pixels: Vec<[u8; 4]>,
    /// Tables of red, green and blue, where all ops of an image look up.
    pub(crate) tables: [Table; 3],
    pub(crate) resizing: Resizing,
    /// A source's view, before its policy.
    pub(crate) framed: Vec<u8>,
    /// Which lanes of the vectors of an output row show the source.
    #[cfg(target_arch = "x86_64")]
    pub(crate) shown: Shown,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    /// Empty buffers, and the best level of this processor. They grow to the size of the largest
    /// image met.
    pub fn new() -> Scratch {
        Scratch::with_level(Level::detect())
    }

    /// As [`Scratch::new`], for work with the instructions of a chosen level. All levels give the
    /// same pixels.
    pub fn with_level(level: Level) -> Scratch {
        Scratch {
            level,
            image: Rgba::EMPTY,
            pixels: Vec::new(),
            tables: [[0; 256]; 3],
            resizing: Resizing::default(),
            framed: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            shown: Shown::default(),
        }
    }

    /// The instructions that this worker uses.
    pub fn level(&self) -> Level {
        self.level
    }

    /// A buffer of so many pixels, with anything in it.
    pub(crate) fn pixels(&mut self, count: usize) -> &mut Vec<[u8; 4]> {
        self.pixels.resize(count, [0; 4]);
        &mut self.pixels
    }
}
