"""albumentations: its own transforms, one for each op, level and sign.

As those all have fixed parameters, each transform's parameters are made once, and its `apply` is
called with them; calling the transform itself takes 5 times as long for the affine ones, most of it
for matrices. Cutouts are two lines of NumPy, because `CoarseDropout` takes 60 to 200 microseconds.
The walk is ours, because the library has none that draws without replacement by probability.
What it cannot do as the paper does: no mask (exposed pixels take the mean colour at once, and later
ops change them); shears are about the centre; Sharpness sharpens and never blurs.
"""

import math
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402

from policy import AFFINE, LEVELS, PARAMETER, Peer  # noqa: E402

cv2.setNumThreads(1)


def versions():
    return f"albumentations {A.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}"


def affine(fill, **how):
    return A.Affine(interpolation=cv2.INTER_NEAREST, border_mode=cv2.BORDER_CONSTANT, fill=fill, p=1,
                    **{"scale": (1, 1), "rotate": (0, 0), "shear": (0, 0), **how})


def transform(op, level, sign, fill):
    """The library's transform for an op at a level."""
    value = PARAMETER[op](level)
    signed = None if value is None else sign * value
    jitter = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    match op:
        case "Rotate":
            return A.Rotate((signed, signed), interpolation=cv2.INTER_NEAREST,
                            border_mode=cv2.BORDER_CONSTANT, fill=fill, p=1)
        case "TranslateX":
            return affine(fill, translate_px={"x": (-signed, -signed), "y": (0, 0)})
        case "TranslateY":
            return affine(fill, translate_px={"x": (0, 0), "y": (-signed, -signed)})
        case "ShearX":
            degrees = math.degrees(math.atan(signed))
            return affine(fill, shear={"x": (degrees, degrees), "y": (0, 0)})
        case "ShearY":
            degrees = math.degrees(math.atan(signed))
            return affine(fill, shear={"x": (0, 0), "y": (degrees, degrees)})
        case "Brightness":
            return A.ColorJitter(**{**jitter, "brightness": (value, value)}, p=1)
        case "Color":
            return A.ColorJitter(**{**jitter, "saturation": (value, value)}, p=1)
        case "Contrast":
            return A.ColorJitter(**{**jitter, "contrast": (value, value)}, p=1)
        case "Sharpness":
            strength = min(1, abs(value - 1))
            return A.Sharpen(alpha=(strength, strength), lightness=(1, 1), p=1)
        case "Posterize":
            return A.Posterize(num_bits=(value, value), p=1)
        case "Solarize":
            return A.Solarize(threshold_range=(min(1, value / 255), min(1, value / 255)), p=1)
        case "Invert":
            return A.InvertImg(p=1)
        case "Equalize":
            return A.Equalize(mode="cv", by_channels=True, p=1)
        case "AutoContrast":
            return A.AutoContrast(cutoff=0, method="pil", p=1)
    raise ValueError(op)


class Augment(Peer):
    def prepare(self):
        keys = [(op, level, sign) for op in PARAMETER if op != "Cutout" for level in LEVELS
                for sign in ((1, -1) if op in AFFINE else (1,))]
        self.transforms = {}
        for key in keys:
            made = transform(*key, self.mean)
            picture = {"image": self.pictures[0]}
            parameters = made.update_transform_params(made.get_params(), picture)
            self.transforms[key] = made.apply, parameters | made.get_params_dependent_on_data(parameters, picture)
        # Called one by one, which is faster than `Compose`.
        self.finish = [
            A.Pad(padding=self.base.padding, fill=self.mean, border_mode=cv2.BORDER_CONSTANT, p=1),
            A.RandomCrop(self.side, self.side, p=1),
            A.HorizontalFlip(p=0.5),
        ]

    def op(self, image, call):
        op, level, sign, column, row = call
        if op == "Cutout":
            half = PARAMETER[op](level) // 2
            hole = (slice(max(0, row - half), row + half), slice(max(0, column - half), column + half))
            image = image.copy()
            image[hole] = self.blank[hole]
            return image
        apply, parameters = self.transforms[op, level, sign if op in AFFINE else 1]
        return apply(image, **parameters)

    def batch(self, indices, out):
        drawn = zip(indices, self.walk.draw(len(indices), self.side), self.base.draw(len(indices)))
        for place, (index, calls, (*_, hole_column, hole_row)) in enumerate(drawn):
            image = self.pictures[index]
            for call in calls:
                image = self.op(image, call)
            for finish in self.finish:
                image = finish(image=image)["image"]
            out[place] = image
            hole = self.base.holes[hole_row], self.base.holes[hole_column]
            out[place][hole] = self.blank[hole]
        return out

    def apply(self, call, picture):
        return self.op(picture, call), None
