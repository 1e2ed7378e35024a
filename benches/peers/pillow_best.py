"""Pillow at its best, with the same pixels as Pillow as shipped.

Images stay RGB. What is a function of one byte is one table look-up, made once by Pillow itself or
from one pass over the pixels. Exposed pixels are a second, one-byte image, only where an affine op
or Cutout made some and no op forgot them, and made once per affine op. Images that no op touches
never become Pillow images.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from PIL import __version__ as pillow_version

from policy import AFFINE, ERASED, LEVELS, PARAMETER, RESETS_MASK, Peer, affine_coefficients

AFFINE_TRANSFORM = Image.Transform.AFFINE
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def versions():
    return f"Pillow {pillow_version}, NumPy {np.__version__}"


def table_of(function):
    """A function of gray or RGB images that treats every byte alike, as a table for `point`."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256))).convert("RGB")
    return np.asarray(function(ramp))[0].T.reshape(-1).tolist()


@lru_cache(None)
def stretch(low, high):
    """One channel's table of AutoContrast."""
    if high <= low:
        return list(range(256))
    scale = 255 / (high - low)
    offset = -low * scale
    return [min(255, max(0, int(value * scale + offset))) for value in range(256)]


@lru_cache(None)
def contrast(level, gray):
    """The table that moves every byte away from the mean gray, or towards it."""
    flat = Image.new("RGB", (256, 1), (gray, gray, gray))
    return table_of(lambda ramp: Image.blend(flat, ramp, PARAMETER["Contrast"](level)))


def look_up(image, table):
    """`image.point(table)`, without its rounding of every entry in Python: half the time saved."""
    return image._new(image.im.point(table, None))


def equalize(image):
    counts = np.array(image.histogram()).reshape(3, 256)
    last = [counts[channel, high] for channel, (_, high) in enumerate(image.getextrema())]
    step = (image.width * image.height - np.array(last)[:, None]) // 255
    sums = counts.cumsum(axis=1) - counts
    table = np.where(step > 0, (step // 2 + sums) // np.maximum(step, 1), np.arange(256))
    return look_up(image, np.minimum(table, 255).ravel().tolist())


class Augment(Peer):
    def prepare(self):
        side = self.side
        self.size = (side, side)
        self.tables = {}
        for level in LEVELS:
            factor, bits, threshold = (PARAMETER[op](level) for op in ("Brightness", "Posterize", "Solarize"))
            self.tables["Brightness", level] = table_of(lambda i: ImageEnhance.Brightness(i).enhance(factor))
            self.tables["Posterize", level] = table_of(lambda i: ImageOps.posterize(i, bits))
            self.tables["Solarize", level] = table_of(lambda i: ImageOps.solarize(i, threshold))
            self.tables["Invert", level] = table_of(ImageOps.invert)
        none = Image.new("L", self.size)
        self.none = none
        self.coefficients, self.exposed = {}, {}
        for op in AFFINE:
            for level in LEVELS:
                for sign in (1, -1):
                    value = sign * PARAMETER[op](level)
                    if not value:
                        self.coefficients[op, level, sign] = None
                        continue
                    coefficients = affine_coefficients(op, value, side)
                    self.coefficients[op, level, sign] = coefficients
                    self.exposed[op, level, sign] = none.transform(
                        self.size, AFFINE_TRANSFORM, coefficients, fillcolor=255)

    def op(self, image, holes, call):
        """An RGB image and its holes (255 where a pixel is exposed; None for none) after one op."""
        name, level, sign, column, row = call
        if name in AFFINE:
            coefficients = self.coefficients[name, level, sign]
            if coefficients is None:
                return image, holes
            if holes is None:
                holes = self.exposed[name, level, sign]
            else:
                holes = holes.transform(self.size, AFFINE_TRANSFORM, coefficients, fillcolor=255)
            return image.transform(self.size, AFFINE_TRANSFORM, coefficients), holes
        table = self.tables.get((name, level))
        if table is not None:
            image = look_up(image, table)
        elif name == "Color":
            image = Image.blend(image.convert("L").convert("RGB"), image, PARAMETER[name](level))
        elif name == "Contrast":
            gray = int(np.asarray(image.convert("L")).mean() + 0.5)
            image = look_up(image, contrast(level, gray))
        elif name == "Sharpness":
            image = Image.blend(image.filter(ImageFilter.SMOOTH), image, PARAMETER[name](level))
        elif name == "Equalize":
            image = equalize(image)
        elif name == "AutoContrast":
            red, green, blue = image.getextrema()
            image = look_up(image, stretch(*red) + stretch(*green) + stretch(*blue))
        elif name == "Cutout":
            half = PARAMETER[name](level) // 2
            if half:
                box = (max(0, column - half), max(0, row - half),
                       min(self.side, column + half), min(self.side, row + half))
                image, holes = image.copy(), (holes or self.none).copy()
                image.paste(ERASED, box)
                holes.paste(255, box)
        return image, None if name in RESETS_MASK else holes

    def augmented(self, image, calls):
        """A Pillow image after the policy."""
        holes = None
        for call in calls:
            image, holes = self.op(image, holes, call)
        if holes is not None:
            image.paste(self.mean, None, holes)
        return image

    def batch(self, indices, out):
        count, side, blank = len(indices), self.side, self.blank
        drawn = zip(indices.tolist(), self.walk.draw(count, side), self.base.draw(count))
        for place, (index, calls, base) in enumerate(drawn):
            pixels = self.pictures[index]
            if calls:
                image = self.augmented(Image.frombytes("RGB", self.size, pixels), calls)
                # Pillow mirrors faster than NumPy.
                if base[2]:
                    image = image.transpose(MIRROR)
                pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(side, side, 3)
                self.base.place(pixels, base, out[place], blank, mirrored=None)
            else:
                self.base.place(pixels, base, out[place], blank)
        return out

    def apply(self, call, picture):
        image, holes = self.op(Image.fromarray(picture), None, call)
        return np.asarray(image), np.asarray(holes or self.none) == 0
