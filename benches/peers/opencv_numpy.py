"""OpenCV and NumPy by hand, as one writes it who wants speed.

Everything that does not depend on pixels is made once: maps of 16-bit coordinates for rotations and
shears (faster here than `warpAffine`, and the very pixels that Pillow takes), tables, masks of the
exposed pixels, 3x3 kernels and 3x3 colour matrices that do an enhancement in one pass. Translations
are slices. The mask is looked at once, at the end.
"""

import math
from functools import lru_cache

import cv2
import numpy as np

from policy import AFFINE, ERASED, LEVELS, PARAMETER, RESETS_MASK, Peer

cv2.setNumThreads(1)
GRAY = np.array([0.299, 0.587, 0.114])


def versions():
    return f"OpenCV {cv2.__version__}, NumPy {np.__version__}"


def clipped(values):
    return np.clip(values, 0, 255).astype(np.uint8)


RAMP = np.arange(256)
BLACK = (0, 0, 0)


@lru_cache(None)
def stretch(low, high):
    if high <= low:
        return RAMP.astype(np.uint8)
    scale = 255 / (high - low)
    return clipped((RAMP * scale - low * scale).astype(int))


@lru_cache(None)
def contrast(level, gray):
    factor = PARAMETER["Contrast"](level)
    return clipped(np.float32(gray) + np.float32(factor) * (RAMP - gray).astype(np.float32))


class Augment(Peer):
    def prepare(self):
        side = self.side
        self.tables = {}
        for level in LEVELS:
            factor, bits, threshold = (PARAMETER[op](level) for op in ("Brightness", "Posterize", "Solarize"))
            self.tables["Brightness", level] = clipped(np.float32(factor) * RAMP.astype(np.float32))
            self.tables["Posterize", level] = (RAMP & (0xFF << (8 - bits)) & 0xFF).astype(np.uint8)
            self.tables["Solarize", level] = np.where(RAMP < threshold, RAMP, 255 - RAMP).astype(np.uint8)
        self.matrices, self.kernels = {}, {}
        for level in LEVELS:
            factor = PARAMETER["Color"](level)
            self.matrices[level] = (factor * np.eye(3) + (1 - factor) * GRAY).astype(np.float32)
            kernel = np.full((3, 3), (1 - factor) / 13, np.float32)
            kernel[1, 1] = factor + (1 - factor) * 5 / 13
            self.kernels[level] = kernel
        self.maps, self.exposed = {}, {}
        for op in AFFINE:
            for level in LEVELS:
                for sign in (1, -1):
                    x, y = self.sources(op, sign * PARAMETER[op](level))
                    self.maps[op, level, sign] = np.dstack([x, y]).astype(np.int16)
                    outside = (x < 0) | (x >= side) | (y < 0) | (y >= side)
                    self.exposed[op, level, sign] = outside.astype(np.uint8) * 255
        self.none = np.zeros((side, side), np.uint8)

    def sources(self, op, value):
        """Where each pixel of the result comes from, as Pillow computes it for nearest pixels."""
        side = self.side
        a, b, c, d, e, f = 1, 0, 0, 0, 1, 0
        if op == "Rotate" and value:
            cosine, sine = (round(g(math.radians(value)), 15) for g in (math.cos, math.sin))
            centre = side / 2
            a, b, c = cosine, -sine, centre - cosine * centre + sine * centre
            d, e, f = sine, cosine, centre - sine * centre - cosine * centre
        elif op == "TranslateX":
            c = value
        elif op == "TranslateY":
            f = value
        elif op == "ShearX":
            b = value
        elif op == "ShearY":
            d = value
        # Pillow steps through rows and columns in fixed point, 16 bits after the point.
        fixed = [math.floor(number * 65536 + 0.5) for number in
                 (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)]
        row, column = np.mgrid[0:side, 0:side].astype(np.int64)
        x = (fixed[2] + column * fixed[0] + row * fixed[1]) >> 16
        y = (fixed[5] + column * fixed[3] + row * fixed[4]) >> 16
        return x, y

    def moved(self, image, call, fill):
        """`image` after an affine op, with exposed pixels of `fill`."""
        name, level, sign = call[:3]
        if name in ("TranslateX", "TranslateY"):
            shift = sign * PARAMETER[name](level)
            side = self.side
            out = (self.blank[0] if fill is self.mean else np.zeros_like(image)).copy()
            to, of = slice(max(0, -shift), side - max(0, shift)), slice(max(0, shift), side - max(0, -shift))
            if name == "TranslateX":
                out[:, to] = image[:, of]
            else:
                out[to] = image[of]
            return out
        return cv2.remap(image, self.maps[name, level, sign], None, cv2.INTER_NEAREST,
                         borderMode=cv2.BORDER_CONSTANT, borderValue=fill)

    def op(self, image, holes, call, last):
        """An image and its holes (255 where a pixel is exposed; None for none) after one op. The
        last op may write the mean colour at once."""
        name, level, sign, column, row = call
        if name in AFFINE:
            if not PARAMETER[name](level):
                return image, holes
            if last:
                if holes is not None:
                    image = cv2.copyTo(self.blank[0], holes, image.copy())
                return self.moved(image, call, self.mean), None
            if holes is None:
                holes = self.exposed[name, level, sign]
            else:
                holes = cv2.remap(holes, self.maps[name, level, sign], None, cv2.INTER_NEAREST,
                                  borderMode=cv2.BORDER_CONSTANT, borderValue=255)
            return self.moved(image, call, BLACK), holes
        table = self.tables.get((name, level))
        if table is not None:
            image = cv2.LUT(image, table)
        elif name == "Invert":
            image = cv2.bitwise_not(image)
        elif name == "Color":
            image = cv2.transform(image, self.matrices[level])
        elif name == "Contrast":
            gray = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
            image = cv2.LUT(image, contrast(level, gray))
        elif name == "Sharpness":
            sharp = cv2.filter2D(image, -1, self.kernels[level])
            # Pillow leaves the outermost pixels as they are.
            sharp[0], sharp[-1], sharp[:, 0], sharp[:, -1] = image[0], image[-1], image[:, 0], image[:, -1]
            image = sharp
        elif name == "Equalize":
            image = cv2.merge([self.equalized(channel) for channel in cv2.split(image)])
        elif name == "AutoContrast":
            channels = cv2.split(image)
            tables = [stretch(*cv2.minMaxLoc(channel)[:2]) for channel in channels]
            image = cv2.merge([cv2.LUT(channel, table) for channel, table in zip(channels, tables)])
        elif name == "Cutout":
            half = PARAMETER[name](level) // 2
            hole = (slice(max(0, row - half), row + half), slice(max(0, column - half), column + half))
            image = image.copy()
            image[hole] = self.blank[0][hole] if last else ERASED
            if not last:
                holes = self.none.copy() if holes is None else holes.copy()
                holes[hole] = 255
        return image, None if name in RESETS_MASK else holes

    @staticmethod
    def equalized(channel):
        counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel()
        sums = counts.cumsum()
        used = np.flatnonzero(counts)
        step = int(sums[-1] - counts[used[-1]]) // 255
        if len(used) < 2 or not step:
            return channel
        return cv2.LUT(channel, np.minimum((sums - counts + step // 2) // step, 255).astype(np.uint8))

    def augmented(self, pixels, calls):
        """The pixels after the policy."""
        image, holes = pixels, None
        for number, call in enumerate(calls, 1):
            image, holes = self.op(image, holes, call, number == len(calls))
        if holes is not None:
            image = cv2.copyTo(self.blank[0], holes, image)
        return image

    def batch(self, indices):
        count, side = len(indices), self.side
        out, blank = self.blank.copy(), self.blank[0]
        drawn = zip(indices.tolist(), self.walk.draw(count, side), self.base.draw(count))
        for place, (index, calls, base) in enumerate(drawn):
            image = self.augmented(self.pictures[index], calls)
            self.base.place(image, base, out[place], blank, lambda crop: cv2.flip(crop, 1))
        return out

    def apply(self, call, picture):
        image, holes = self.op(picture, None, call, False)
        return image, (self.none if holes is None else holes) == 0
