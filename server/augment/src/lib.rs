//! Augmentation: pixels in, pixels out.
