//! Memory that a worker keeps between images.

use crate::image::Rgba;

/// Buffers that rendering reuses: one per worker thread. What it holds never affects a result.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The working image of [`render_image`](crate::render_image).
    pub(crate) image: Rgba,
    /// Where an op that cannot work in place writes, before it swaps.
    pub(crate) pixels: Vec<[u8; 4]>,
    /// A row of sums, for Sharpness.
    pub(crate) sums: Vec<u16>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    /// Empty buffers. They grow to the size of the largest image met.
    pub fn new() -> Scratch {
        Scratch { image: Rgba::EMPTY, pixels: Vec::new(), sums: Vec::new() }
    }

    /// A buffer of so many pixels, with anything in it.
    pub(crate) fn pixels(&mut self, count: usize) -> &mut Vec<[u8; 4]> {
        self.pixels.resize(count, [0; 4]);
        &mut self.pixels
    }
}
