"""Pillow as shipped: what the paper's authors do, with today's Pillow.

Every image becomes an RGBA image; each op goes through Pillow's own classes and functions, and
those that know no alpha convert to RGB and back; the slots are shuffled and walked in Python; alpha
0 becomes the mean at the end. Kinder than the authors' code, which also normalises to floats and
back, and reads its pixels through Python lists.
"""

import random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from PIL import __version__ as pillow_version

from policy import ERASED, PARAMETER, Peer, last_policy

AFFINE = Image.Transform.AFFINE


def versions():
    return f"Pillow {pillow_version}, NumPy {np.__version__}"


def op(image, call):
    """An RGBA image after one op."""
    name, level, sign, column, row = call
    value = PARAMETER[name](level)
    size = image.size
    match name:
        case "Rotate":
            return image.rotate(sign * value)
        case "TranslateX":
            return image.transform(size, AFFINE, (1, 0, sign * value, 0, 1, 0))
        case "TranslateY":
            return image.transform(size, AFFINE, (1, 0, 0, 0, 1, sign * value))
        case "ShearX":
            return image.transform(size, AFFINE, (1, sign * value, 0, 0, 1, 0))
        case "ShearY":
            return image.transform(size, AFFINE, (1, 0, 0, sign * value, 1, 0))
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(value)
        case "Posterize":
            return ImageOps.posterize(image.convert("RGB"), value).convert("RGBA")
        case "Solarize":
            return ImageOps.solarize(image.convert("RGB"), value).convert("RGBA")
        case "Invert":
            return ImageOps.invert(image.convert("RGB")).convert("RGBA")
        case "Equalize":
            return ImageOps.equalize(image.convert("RGB")).convert("RGBA")
        case "AutoContrast":
            return ImageOps.autocontrast(image.convert("RGB")).convert("RGBA")
        case "Cutout":
            image = image.copy()
            if value:
                half = value // 2
                box = (max(0, column - half), max(0, row - half),
                       min(size[0], column + half), min(size[1], row + half))
                image.paste((*ERASED, 0), box)
            return image
    raise ValueError(name)


class Augment(Peer):
    def prepare(self):
        self.slots = last_policy()
        self.random = random.Random(5)

    def policy(self, image):
        draw = self.random
        (count,) = draw.choices((0, 1, 2), (0.2, 0.3, 0.5))
        if not count:
            return image
        slots = self.slots.copy()
        draw.shuffle(slots)
        for name, probability, level in slots:
            if draw.random() < probability / 10:
                call = (name, level, draw.choice((1, -1)), draw.randrange(self.side), draw.randrange(self.side))
                image = op(image, call)
                count -= 1
                if not count:
                    break
        return image

    def batch(self, indices, out):
        for place, index in enumerate(indices):
            rgba = np.array(self.policy(Image.fromarray(self.pictures[index]).convert("RGBA")))
            image = rgba[..., :3]
            image[rgba[..., 3] == 0] = self.mean
            (draws,) = self.base.draw(1)
            self.base.place(image, draws, out[place], self.blank)
        return out

    def apply(self, call, picture):
        rgba = np.array(op(Image.fromarray(picture).convert("RGBA"), call))
        return rgba[..., :3], rgba[..., 3] == 255
