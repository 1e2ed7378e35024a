//! Buffers that a worker keeps between images.

use crate::call::OpCalls;
use crate::image::Rgba;
use crate::simd::level::Level;
use crate::simd::lookup::portable::LookupTable;
use crate::simd::place::portable::LanesShown;
use crate::simd::resize::Resizer;

/// Buffers that rendering reuses: one per worker thread. What it holds never affects a result.
#[derive(Clone, Debug)]
pub struct Scratch {
    level: Level,
    /// The ops of the image.
    pub(crate) calls: OpCalls,
    /// The working image of [`render_image`](crate::render_image).
    pub(crate) image: Rgba,
    /// Where an op that cannot work in place writes, before it swaps.
    pub(crate) pixels: Vec<[u8; 4]>,
    /// Tables of red, green and blue, where all ops of an image look up.
    pub(crate) tables: [LookupTable; 3],
    pub(crate) resizer: Resizer,
    /// What a view shows of its source, before the policy.
    pub(crate) framed: Vec<u8>,
    /// The image after crop and flip, where these come before the policy.
    pub(crate) placed: Vec<u8>,
    /// Which lanes of the vectors of an output row show the source.
    pub(crate) shown: LanesShown,
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
            calls: OpCalls::NONE,
            image: Rgba::EMPTY,
            pixels: Vec::new(),
            tables: [[0; 256]; 3],
            resizer: Resizer::default(),
            framed: Vec::new(),
            placed: Vec::new(),
            shown: LanesShown::default(),
        }
    }

    /// The instructions that this worker uses.
    pub fn level(&self) -> Level {
        self.level
    }
}
