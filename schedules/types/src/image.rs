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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_three_bytes_a_pixel() {
        let shape = ImageShape { height: 3, width: 5 };
        assert_eq!((shape.pixels(), shape.rgb_bytes()), (15, 45));
    }

    #[test]
    fn each_side_is_bounded() {
        let sides = [(0, false), (1, true), (SIDE_MAX, true), (SIDE_MAX + 1, false)];
        for (height, height_is_allowed) in sides {
            for (width, width_is_allowed) in sides {
                let shape = ImageShape { height, width };
                let expected = match height_is_allowed && width_is_allowed {
                    true => Ok(shape),
                    false => Err(ShapeError { height, width }),
                };
                assert_eq!(shape.check(), expected);
            }
        }
    }

    /// A box holds another exactly when it holds each of its pixels.
    #[test]
    fn a_box_contains_what_has_all_its_pixels_in_it() {
        let range = |of: u32| (0..4).flat_map(move |first| (1..=of - first).map(move |count| (first, count)));
        let boxes: Vec<PixelBox> = range(4)
            .flat_map(|(left, width)| {
                range(4).map(move |(top, height)| PixelBox { left, top, width, height })
            })
            .collect();
        let pixels = |of: PixelBox| {
            (of.left..of.left + of.width).flat_map(move |x| (of.top..of.top + of.height).map(move |y| (x, y)))
        };
        for &one in &boxes {
            for &other in &boxes {
                let all = pixels(other).all(|pixel| pixels(one).any(|of_one| of_one == pixel));
                assert_eq!(one.contains(other), all, "{other:?} in {one:?}");
            }
            assert!(PixelBox::whole(ImageShape { height: 4, width: 4 }).contains(one));
        }
        // The far end of a box is computed without overflow.
        let far = PixelBox { left: u32::MAX, top: 0, width: 2, height: 1 };
        assert!(far.contains(far) && !far.contains(PixelBox { width: 3, ..far }));
    }
}
