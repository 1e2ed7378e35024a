//! Sizes of images, and boxes in them.

use crate::limits::SIDE_MAX;

/// Height and width of an image in pixels. There are always three channels: interleaved red,
/// green and blue bytes, rows from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl ImageShape {
    /// Pixels of an image.
    #[inline]
    pub fn pixels(self) -> usize {
        self.height as usize * self.width as usize
    }

    /// Bytes of an image of red, green and blue.
    #[inline]
    pub fn rgb_bytes(self) -> usize {
        3 * self.pixels()
    }

    /// Checks that both sides are within 1..=[`SIDE_MAX`].
    ///
    /// # Errors
    /// When one is not.
    #[inline]
    pub fn check(self) -> Result<ImageShape, ShapeError> {
        let sides = 1..=SIDE_MAX;
        if sides.contains(&self.height) && sides.contains(&self.width) {
            Ok(self)
        } else {
            Err(ShapeError { height: self.height, width: self.width })
        }
    }
}

/// An image without pixels, or with a side that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an image of {height} rows and {width} columns; allowed are 1..={SIDE_MAX} of each")]
pub struct ShapeError {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// A box of whole pixels in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelBox {
    /// Its first column.
    pub left: u32,
    /// Its first row.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

impl PixelBox {
    /// All pixels of an image.
    #[inline]
    pub fn whole(shape: ImageShape) -> PixelBox {
        PixelBox { left: 0, top: 0, width: shape.width, height: shape.height }
    }

    /// Whether all pixels of `other` are in it.
    #[inline]
    pub fn contains(self, other: PixelBox) -> bool {
        let within = |first: u32, count: u32, of_first: u32, of_count: u32| {
            first >= of_first
                && u64::from(first) + u64::from(count) <= u64::from(of_first) + u64::from(of_count)
        };
        within(other.left, other.width, self.left, self.width)
            && within(other.top, other.height, self.top, self.height)
    }
}
