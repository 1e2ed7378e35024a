//! The base augmentation: what every training image goes through besides its policy.

use std::fmt;
use std::str::FromStr;

use crate::frame::{FRAME_SIDE_MAX, Frame};
use pba_types::ImageShape;

/// Largest padding or cutout, in pixels: more than any image gains by, and so small that no
/// coordinate can overflow.
pub const BASE_NUMBER_MAX: u32 = 1024;

/// A frame, crop, flip and cutout, in this order, each at most once.
///
/// Written as `pad_crop:4,flip,cutout:16` or `random_resized_crop:224,flip`, or `identity` when
/// there is none of them.
///
/// The frame comes before the policy and the cutout after it. Crop and flip come after the paper's pairs,
/// as in the paper; and before the policies of other families, as in torchvision's recipes, so that these
/// see the padding. What an op exposes becomes the mean colour with pairs, and black with the others.
///
/// ```
/// use pba_augment::{Base, Frame};
/// let base: Base = "pad_crop:4,flip".parse()?;
/// assert_eq!(base, Base { frame: Frame::Full, pad_crop: Some(4), flip: true, cutout: None });
/// assert_eq!(base.to_string(), "pad_crop:4,flip");
/// let base: Base = "resize:256,center_crop:224".parse()?;
/// assert_eq!(base.frame, Frame::Resize { shorter: 256, crop: 224 });
/// # Ok::<(), pba_augment::BaseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Base {
    /// Which part of its source an image shows.
    pub frame: Frame,
    /// Pad every side by so many pixels of the mean colour, then cut the image's own size out of
    /// it. For a padding of P the corner of the cut is uniform over `0..=2P-1` in both axes: the
    /// reference never draws the last of the 2P + 1 possible places.
    pub pad_crop: Option<u32>,
    /// Mirror left to right with probability 1/2.
    pub flip: bool,
    /// Erase a square with sides of so many pixels to the mean colour. For a size of C its centre
    /// c is uniform over the image; it covers `c - floor(C/2) .. c - floor(C/2) + C` in both axes,
    /// as far as that lies in the image.
    pub cutout: Option<u32>,
}

/// Side of what is shown of images of different sizes: ImageNet's.
const PHOTO_SIDE: u32 = 224;

impl Base {
    /// No base augmentation.
    pub const IDENTITY: Base = Base { frame: Frame::Full, pad_crop: None, flip: false, cutout: None };

    /// What the paper uses on CIFAR: `pad_crop:4,flip,cutout:16`.
    pub const fn cifar() -> Base {
        Base { frame: Frame::Full, pad_crop: Some(4), flip: true, cutout: Some(16) }
    }

    /// [`Base::cifar`] in proportion to the shorter side of images of another size: padding of an
    /// eighth of it, a cutout of half.
    fn for_images(shape: ImageShape) -> Base {
        let side = shape.height.min(shape.width);
        let step = |number: u32| (number > 0).then_some(number.min(BASE_NUMBER_MAX));
        Base { frame: Frame::Full, pad_crop: step(side / 8), flip: true, cutout: step(side / 2) }
    }

    /// The base augmentation of images to train on whose owner chooses none, from their shape (none if they
    /// differ in size).
    ///
    /// Images of one size get [`Base::cifar`] in proportion to their shorter side, without the cutout
    /// where that hides what an image shows; images of several sizes get `random_resized_crop:224,flip`,
    /// as is usual on ImageNet.
    ///
    /// ```
    /// use pba_augment::{Base, ImageShape};
    /// let shape = ImageShape { height: 64, width: 96 };
    /// assert_eq!(Base::of_images(Some(shape), false).to_string(), "pad_crop:8,flip,cutout:32");
    /// assert_eq!(Base::of_images(None, false).to_string(), "random_resized_crop:224,flip");
    /// ```
    pub fn of_images(shape: Option<ImageShape>, hidden_by_cutout: bool) -> Base {
        let base = match shape {
            Some(shape) => Base::for_images(shape),
            None => {
                Base { frame: Frame::RandomResizedCrop(PHOTO_SIDE), flip: true, pad_crop: None, cutout: None }
            }
        };
        if hidden_by_cutout { Base { cutout: None, ..base } } else { base }
    }

    /// The base to train a model with: what is asked for, or else the dataset's own without its frame.
    ///
    /// # Errors
    /// When what is asked for is no base, or has a frame: models train on images as they are.
    pub fn for_training(asked: Option<&str>, own: Base) -> Result<Base, BaseError> {
        match asked.map(str::parse::<Base>).transpose()? {
            None => Ok(Base { frame: Frame::Full, ..own }),
            Some(base) if base.frame == Frame::Full => Ok(base),
            Some(Base { frame, .. }) => Err(BaseError::FramedTraining(frame)),
        }
    }

    /// The images that a model is evaluated on after it was trained with this base: untouched, or where
    /// this makes images of a size, the middle of each at that size: `resize:256,center_crop:224` after
    /// `random_resized_crop:224`, and in that proportion for other sides.
    pub fn for_evaluation(self) -> Base {
        let frame = match self.frame {
            Frame::RandomResizedCrop(side) => return Base::middle(side),
            frame => frame,
        };
        Base { frame, ..Base::IDENTITY }
    }

    /// The middle of each image, of any size, at a size that crops to train on have: of 256 pixels 224, and in that
    /// proportion for other sides.
    pub fn middle(side: u32) -> Base {
        let frame =
            Frame::Resize { shorter: (side * 8 / 7).clamp(side, FRAME_SIDE_MAX.max(side)), crop: side };
        Base { frame, ..Base::IDENTITY }
    }

    /// Checks that the numbers are within 1..=[`BASE_NUMBER_MAX`], those of the frame within
    /// 1..=[`FRAME_SIDE_MAX`], and that a centre crop is no larger than what it is cut from.
    ///
    /// # Errors
    /// When one is not: what its text is refused for.
    pub fn check(self) -> Result<Base, BaseError> {
        self.to_string().parse()
    }
}

/// Why a base augmentation was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// A step nobody knows.
    #[error(
        "unknown step {0:?} of the base augmentation; allowed are \"identity\" alone, or \
         random_resized_crop:N (or resize:N,center_crop:N), pad_crop:N, flip and cutout:N in this order, \
         separated by commas"
    )]
    UnknownStep(String),
    /// A number that is missing, not a number, or out of range.
    #[error(
        "{step} needs a number of pixels, as in \"{step}:4\"; found {value:?}, allowed are 1..={BASE_NUMBER_MAX}"
    )]
    Number {
        /// The step.
        step: &'static str,
        /// What stood after the colon; empty when there was nothing.
        value: String,
    },
    /// A side that is missing, not a number, or out of range.
    #[error(
        "{step} needs a side in pixels, as in \"{step}:224\"; found {value:?}, allowed are 1..={FRAME_SIDE_MAX}"
    )]
    Side {
        /// The step.
        step: &'static str,
        /// What stood after the colon; empty when there was nothing.
        value: String,
    },
    /// A centre crop of more than there is.
    #[error(
        "center_crop:{crop} is larger than the shorter side that resize:{shorter} leaves; allowed are 1..={shorter}"
    )]
    CropBeyond {
        /// The shorter side after resizing.
        shorter: u32,
        /// Side of the crop.
        crop: u32,
    },
    /// A resize without its crop, or a crop without its resize.
    #[error("{step} comes only together, as in \"resize:256,center_crop:224\"; {missing} is missing")]
    Half {
        /// The step that is there.
        step: &'static str,
        /// The step that is not.
        missing: &'static str,
    },
    /// A random crop, and the first step of another frame.
    #[error("random_resized_crop and {0} both choose what is shown; allowed is one of them")]
    TwoFrames(&'static str),
    /// A frame where a model is to be trained.
    #[error("models train on images as they are, without {0}")]
    FramedTraining(Frame),
    /// A number where none belongs.
    #[error("flip takes no number; found {0:?}")]
    FlipNumber(String),
    /// A step given twice.
    #[error("{0} is given twice; every step of the base augmentation comes at most once")]
    Repeated(&'static str),
    /// Steps in an order in which they are not applied.
    #[error(
        "{step} comes after {after}; the order is random_resized_crop or resize and center_crop, then pad_crop, \
         flip, cutout"
    )]
    Order {
        /// The later step, which should be earlier.
        step: &'static str,
        /// The step before it.
        after: &'static str,
    },
}

/// The steps in the order in which they are applied.
const STEPS: [&str; 6] = ["random_resized_crop", "resize", "center_crop", "pad_crop", "flip", "cutout"];

impl FromStr for Base {
    type Err = BaseError;

    fn from_str(text: &str) -> Result<Base, BaseError> {
        let mut base = Base::IDENTITY;
        if text == "identity" {
            return Ok(base);
        }
        let (mut random, mut shorter, mut crop) = (None, None, None);
        let mut given: Vec<usize> = Vec::new();
        for entry in text.split(',') {
            let (name, value) =
                entry.split_once(':').map_or((entry, None), |(name, value)| (name, Some(value)));
            let Some(position) = STEPS.iter().position(|&step| step == name) else {
                return Err(BaseError::UnknownStep(entry.to_owned()));
            };
            let step = STEPS[position];
            if given.contains(&position) {
                return Err(BaseError::Repeated(step));
            }
            if let Some(&previous) = given.last().filter(|&&previous| previous > position) {
                return Err(BaseError::Order { step, after: STEPS[previous] });
            }
            given.push(position);
            let found = || value.unwrap_or_default().to_owned();
            let side =
                || digits(value, FRAME_SIDE_MAX).ok_or_else(|| BaseError::Side { step, value: found() });
            let number =
                || digits(value, BASE_NUMBER_MAX).ok_or_else(|| BaseError::Number { step, value: found() });
            match step {
                "random_resized_crop" => random = Some(side()?),
                "resize" => shorter = Some(side()?),
                "center_crop" => crop = Some(side()?),
                "pad_crop" => base.pad_crop = Some(number()?),
                "cutout" => base.cutout = Some(number()?),
                _ if value.is_some() => return Err(BaseError::FlipNumber(found())),
                _ => base.flip = true,
            }
        }
        base.frame = match (random, shorter, crop) {
            (None, None, None) => Frame::Full,
            (Some(side), None, None) => Frame::RandomResizedCrop(side),
            (None, Some(shorter), Some(crop)) if crop > shorter => {
                return Err(BaseError::CropBeyond { shorter, crop });
            }
            (None, Some(shorter), Some(crop)) => Frame::Resize { shorter, crop },
            (None, Some(_), None) => return Err(BaseError::Half { step: "resize", missing: "center_crop" }),
            (None, None, Some(_)) => return Err(BaseError::Half { step: "center_crop", missing: "resize" }),
            (Some(_), Some(_), _) => return Err(BaseError::TwoFrames("resize")),
            (Some(_), None, Some(_)) => return Err(BaseError::TwoFrames("center_crop")),
        };
        Ok(base)
    }
}

/// A number of digits only, within 1..=`max`: `u32::from_str` would also take a plus sign.
fn digits(value: Option<&str>, max: u32) -> Option<u32> {
    value
        .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|value| value.parse().ok())
        .filter(|number| (1..=max).contains(number))
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [
            (self.frame != Frame::Full).then(|| self.frame.to_string()),
            self.pad_crop.map(|padding| format!("pad_crop:{padding}")),
            self.flip.then(|| "flip".to_owned()),
            self.cutout.map(|size| format!("cutout:{size}")),
        ];
        let steps: Vec<String> = steps.into_iter().flatten().collect();
        f.pad(&if steps.is_empty() { "identity".to_owned() } else { steps.join(",") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn refuse(text: &str, says: &str) {
        let error = text.parse::<Base>().unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn images_that_a_cutout_would_hide_have_none() {
        let shape = Some(ImageShape { height: 64, width: 96 });
        assert_eq!(Base::of_images(shape, false).to_string(), "pad_crop:8,flip,cutout:32");
        assert_eq!(Base::of_images(shape, true).to_string(), "pad_crop:8,flip");
    }

    #[test]
    fn wrong_texts_are_refused_by_name() {
        refuse("", "unknown step \"\"");
        refuse("crop:4", "unknown step \"crop:4\"");
        refuse("pad_crop:4, flip", "unknown step \" flip\"");
        refuse("identity,flip", "\"identity\" alone");
        refuse("Flip", "unknown step \"Flip\"");
        refuse("pad_crop", "pad_crop needs a number of pixels");
        refuse("cutout:", "found \"\", allowed are 1..=1024");
        refuse("cutout:0", "found \"0\"");
        refuse("cutout:1025", "found \"1025\"");
        refuse("cutout:99999999999", "found \"99999999999\"");
        refuse("cutout:+4", "found \"+4\"");
        refuse("cutout:-4", "found \"-4\"");
        refuse("cutout:4:4", "found \"4:4\"");
        refuse("flip:1", "flip takes no number; found \"1\"");
        refuse("flip,flip", "flip is given twice");
        refuse("pad_crop:1,cutout:2,pad_crop:3", "pad_crop is given twice");
        refuse("flip,pad_crop:4", "pad_crop comes after flip");
        refuse("cutout:16,flip", "flip comes after cutout");
        refuse("flip,random_resized_crop:224", "random_resized_crop comes after flip");
        refuse("random_resized_crop", "random_resized_crop needs a side in pixels");
        refuse("random_resized_crop:0", "found \"0\", allowed are 1..=1024");
        refuse("random_resized_crop:1025", "found \"1025\"");
        refuse("resize:256", "center_crop is missing");
        refuse("center_crop:224,flip", "resize is missing");
        refuse("center_crop:224,resize:256", "resize comes after center_crop");
        refuse("resize:224,center_crop:225", "allowed are 1..=224");
        refuse("random_resized_crop:224,center_crop:224", "random_resized_crop and center_crop");
        refuse("random_resized_crop:224,resize:256,center_crop:224", "random_resized_crop and resize");
    }

    #[test]
    fn the_paper_s_base() {
        assert_eq!("pad_crop:4,flip,cutout:16".parse(), Ok(Base::cifar()));
        assert_eq!("identity".parse(), Ok(Base::IDENTITY));
        assert_eq!(Base::IDENTITY.to_string(), "identity");
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            Just(Frame::Full),
            (1..=FRAME_SIDE_MAX).prop_map(Frame::RandomResizedCrop),
            (1..=FRAME_SIDE_MAX)
                .prop_flat_map(|shorter| (Just(shorter), 1..=shorter))
                .prop_map(|(shorter, crop)| Frame::Resize { shorter, crop }),
        ]
    }

    proptest! {
        #[test]
        fn text_reads_back(
            frame in any_frame(),
            pad_crop in prop::option::of(1..=BASE_NUMBER_MAX),
            flip: bool,
            cutout in prop::option::of(1..=BASE_NUMBER_MAX),
        ) {
            let base = Base { frame, pad_crop, flip, cutout };
            prop_assert_eq!(base.to_string().parse(), Ok(base));
            prop_assert_eq!(base.check(), Ok(base));
        }
    }

    #[test]
    fn models_train_on_images_as_they_are() {
        let own: Base = "random_resized_crop:224,flip".parse().unwrap();
        assert_eq!(Base::for_training(None, own).unwrap().to_string(), "flip");
        assert_eq!(Base::for_training(Some("cutout:8"), own).unwrap().to_string(), "cutout:8");
        let refused = |asked| Base::for_training(Some(asked), own).unwrap_err().to_string();
        assert_eq!(
            refused("resize:73,center_crop:64"),
            "models train on images as they are, without resize:73,center_crop:64"
        );
        assert!(refused("crop:4").contains("unknown step"));
    }

    #[track_caller]
    fn check_evaluation(base: &str, expected: &str) {
        assert_eq!(base.parse::<Base>().unwrap().for_evaluation().to_string(), expected);
    }

    #[test]
    fn evaluation_shows_what_training_shows() {
        check_evaluation("pad_crop:4,flip,cutout:16", "identity");
        check_evaluation("random_resized_crop:224,flip", "resize:256,center_crop:224");
        check_evaluation("random_resized_crop:64,pad_crop:4,cutout:8", "resize:73,center_crop:64");
        check_evaluation("random_resized_crop:1", "resize:1,center_crop:1");
        check_evaluation("random_resized_crop:1024", "resize:1024,center_crop:1024");
        check_evaluation("resize:300,center_crop:200,flip", "resize:300,center_crop:200");
    }
}
