"""OpenCV and NumPy by hand, as one writes it who wants speed and measures.

Everything that does not depend on pixels is made once: maps of 16-bit coordinates for rotations and
shears (the very pixels that Pillow takes), masks of the exposed pixels, 3x3 kernels, and colour
matrices that do an enhancement in one pass. `LUT` is slow in OpenCV, so that what a table would do
is arithmetic on vectors: a threshold and an exclusive or for Solarize, an and for Posterize, linear
maps for Brightness, Contrast and AutoContrast. These round where Pillow truncates. `equalizeHist`
has its own formula, and takes a quarter of the time of Pillow's formula in NumPy. Translations are
slices. The mask is looked at once, at the end.
"""

import math

import cv2
import numpy as np

from policy import AFFINE, ERASED, LEVELS, PARAMETER, RESETS_MASK, Peer, affine_coefficients

cv2.setNumThreads(1)
GRAY = np.array([0.299, 0.587, 0.114])


def versions():
    return f"OpenCV {cv2.__version__}, NumPy {np.__version__}"


BLACK = (0, 0, 0)
# Up to this side a map of coordinates is faster than computing them; larger maps leave the cache.
REMAP_SIDE_MAX = 64


class Augment(Peer):
    def prepare(self):
        side = self.side
        self.kept_bits = [np.full_like(self.blank, 256 - (1 << (8 - PARAMETER["Posterize"](level))))
                          for level in LEVELS]
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
                    x, y, matrix = self.sources(op, sign * PARAMETER[op](level))
                    if side <= REMAP_SIDE_MAX:
                        matrix = np.dstack([x, y]).astype(np.int16)
                    self.maps[op, level, sign] = matrix
                    outside = (x < 0) | (x >= side) | (y < 0) | (y >= side)
                    self.exposed[op, level, sign] = outside.astype(np.uint8) * 255
        self.none = np.zeros((side, side), np.uint8)

    def sources(self, op, value):
        """Where each pixel of the result comes from, as Pillow computes it for nearest pixels:
        columns, rows, and the matrix for `warpAffine`."""
        side = self.side
        a, b, c, d, e, f = affine_coefficients(op, value, side)
        # Pillow steps through rows and columns in fixed point, 16 bits after the point.
        fixed = [math.floor(number * 65536 + 0.5) for number in
                 (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)]
        row, column = np.mgrid[0:side, 0:side].astype(np.int64)
        x = (fixed[2] + column * fixed[0] + row * fixed[1]) >> 16
        y = (fixed[5] + column * fixed[3] + row * fixed[4]) >> 16
        # OpenCV counts from the centres of pixels, Pillow from their corners.
        matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
        return x, y, matrix

    def moved(self, image, call, fill):
        """`image` after an affine op, with exposed pixels of `fill`."""
        name, level, sign = call[:3]
        if name in ("TranslateX", "TranslateY"):
            shift = sign * PARAMETER[name](level)
            side = self.side
            out = (self.blank if fill is self.mean else np.zeros_like(image)).copy()
            to, of = slice(max(0, -shift), side - max(0, shift)), slice(max(0, shift), side - max(0, -shift))
            if name == "TranslateX":
                out[:, to] = image[:, of]
            else:
                out[to] = image[of]
            return out
        return self.warped(image, call, fill)

    def warped(self, image, call, fill):
        how = self.maps[call[:3]]
        if self.side <= REMAP_SIDE_MAX:
            return cv2.remap(image, how, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
        return cv2.warpAffine(image, how, (self.side, self.side), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
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
                    image = cv2.copyTo(self.blank, holes, image.copy())
                return self.moved(image, call, self.mean), None
            if holes is None:
                holes = self.exposed[name, level, sign]
            else:
                holes = self.warped(holes, call, 255)
            return self.moved(image, call, BLACK), holes
        if name == "Brightness":
            image = cv2.convertScaleAbs(image, alpha=PARAMETER[name](level))
        elif name == "Posterize":
            image = cv2.bitwise_and(image, self.kept_bits[level])
        elif name == "Solarize":
            _, high = cv2.threshold(image, PARAMETER[name](level) - 1, 255, cv2.THRESH_BINARY)
            image = cv2.bitwise_xor(image, high)
        elif name == "Invert":
            image = cv2.bitwise_not(image)
        elif name == "Color":
            image = cv2.transform(image, self.matrices[level])
        elif name == "Contrast":
            gray = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
            factor = PARAMETER[name](level)
            image = cv2.addWeighted(image, factor, image, 0, (1 - factor) * gray)
        elif name == "Sharpness":
            sharp = cv2.filter2D(image, -1, self.kernels[level])
            # Pillow leaves the outermost pixels as they are.
            sharp[0], sharp[-1], sharp[:, 0], sharp[:, -1] = image[0], image[-1], image[:, 0], image[:, -1]
            image = sharp
        elif name == "Equalize":
            image = cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])
        elif name == "AutoContrast":
            stretch = np.eye(3, 4, dtype=np.float32)
            for channel, plane in enumerate(cv2.split(image)):
                low, high, _, _ = cv2.minMaxLoc(plane)
                if high > low:
                    stretch[channel, channel] = scale = 255 / (high - low)
                    stretch[channel, 3] = -low * scale
            image = cv2.transform(image, stretch)
        elif name == "Cutout":
            half = PARAMETER[name](level) // 2
            hole = (slice(max(0, row - half), row + half), slice(max(0, column - half), column + half))
            image = image.copy()
            image[hole] = self.blank[hole] if last else ERASED
            if not last:
                holes = self.none.copy() if holes is None else holes.copy()
                holes[hole] = 255
        return image, None if name in RESETS_MASK else holes

    def augmented(self, pixels, calls):
        """The pixels after the policy."""
        image, holes = pixels, None
        for number, call in enumerate(calls, 1):
            image, holes = self.op(image, holes, call, number == len(calls))
        if holes is not None:
            image = cv2.copyTo(self.blank, holes, image)
        return image

    def batch(self, indices, out):
        count, side, blank = len(indices), self.side, self.blank
        drawn = zip(indices.tolist(), self.walk.draw(count, side), self.base.draw(count))
        for place, (index, calls, base) in enumerate(drawn):
            image = self.augmented(self.pictures[index], calls)
            self.base.place(image, base, out[place], blank, lambda crop: cv2.flip(crop, 1))
        return out

    def apply(self, call, picture):
        image, holes = self.op(picture, None, call, False)
        return image, (self.none if holes is None else holes) == 0
