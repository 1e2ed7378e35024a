"""What every peer has to do: the policy, its magnitudes, its draws, and the base augmentation.

The walk of the paper draws `count`, shuffles 30 slots, and takes the first `count` that fire. As a
slot fires independently of its place, that is: let all slots fire at once, and take `count` of
those that did in a random order. `Walk` does so for a whole batch with NumPy, which costs the peers
1 to 2 microseconds an image; a shuffle of 30 in Python would cost 15.
"""

import abc
import json
import math
import pathlib

import numpy as np

BATCH = 128
SCHEDULE = pathlib.Path(__file__).resolve().parents[2] / "schedules" / "library" / "cifar10-pba.json"
LEVELS = range(10)
# The parameter of an op at a level, before its sign. As the paper's authors have it, to the bit.
PARAMETER = {
    "Rotate": lambda level: int(level * 30 / 10),
    "TranslateX": lambda level: int(level * 10 / 10),
    "TranslateY": lambda level: int(level * 10 / 10),
    "ShearX": lambda level: level * 0.3 / 10,
    "ShearY": lambda level: level * 0.3 / 10,
    "Brightness": lambda level: level * 1.8 / 10 + 0.1,
    "Color": lambda level: level * 1.8 / 10 + 0.1,
    "Contrast": lambda level: level * 1.8 / 10 + 0.1,
    "Sharpness": lambda level: level * 1.8 / 10 + 0.1,
    "Posterize": lambda level: 4 - int(level * 4 / 10),
    "Solarize": lambda level: 256 - int(level * 256 / 10),
    "Cutout": lambda level: int(level * 20 / 10),
    "Invert": lambda level: None,
    "Equalize": lambda level: None,
    "AutoContrast": lambda level: None,
}
AFFINE = ("Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY")
# These go through RGB in the authors' code, which forgets what was exposed before.
RESETS_MASK = ("Posterize", "Solarize", "Invert", "Equalize", "AutoContrast")
# What Cutout leaves, with alpha 0.
ERASED = (125, 122, 113)


def affine_coefficients(op, value, side):
    """Where a pixel of the result of an affine op comes from, (a, b, c, d, e, f) as `Image.transform`
    takes them: column a x + b y + c, row d x + e y + f, counted from the corners of pixels. Rotate's
    are those with which `Image.rotate` calls it."""
    if op == "Rotate":
        cosine, sine = (round(f(math.radians(value)), 15) for f in (math.cos, math.sin))
        centre = side / 2
        return (
            cosine, -sine, cosine * -centre + -sine * -centre + centre,
            sine, cosine, sine * -centre + cosine * -centre + centre,
        )
    return {
        "TranslateX": (1, 0, value, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, value),
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
    }[op]


def last_policy():
    """The 30 slots of the last segment of the paper's CIFAR-10 schedule: op, probability, level."""
    schedule = json.loads(SCHEDULE.read_text())
    pairs = schedule["segments"][-1]["policy"]
    ops = schedule["ops"]
    return [(ops[slot % len(ops)], probability, level) for slot, (probability, level) in enumerate(pairs)]


class Walk:
    """Draws the ops of a batch of images."""

    def __init__(self, slots, generator):
        slots = [slot for slot in slots if slot[1] > 0]
        self.calls = [(op, level) for op, _, level in slots]
        self.probability = np.array([probability / 10 for _, probability, _ in slots])
        self.generator = generator

    def draw(self, count, side):
        """For each of `count` images, a list of (op, level, sign, column, row)."""
        generator = self.generator
        order = generator.random((count, len(self.calls)), np.float32)
        order[generator.random(order.shape, np.float32) >= self.probability] = 2
        first_two = np.argpartition(order, 1, axis=1)[:, :2]
        fired = np.take_along_axis(order, first_two, axis=1) < 2
        # 0, 1 or 2 ops at most, with probabilities 0.2, 0.3 and 0.5.
        limits = np.searchsorted([0.2, 0.5], generator.random(count), side="right").tolist()
        signs = (1 - 2 * generator.integers(0, 2, (count, 2))).tolist()
        centres = generator.integers(0, side, (count, 2, 2)).tolist()
        calls = self.calls
        drawn = []
        for limit, slots, fires, sign, centre in zip(
            limits, first_two.tolist(), fired.tolist(), signs, centres
        ):
            drawn.append([
                (*calls[slots[place]], sign[place], *centre[place])
                for place in range(2)
                if place < limit and fires[place]
            ])
        return drawn


def mirrored_pixels(image):
    """An image mirrored by NumPy: items of three bytes are twice as fast as three items."""
    return image.view("V3")[:, ::-1].view(np.uint8)


class Base:
    """Pad and crop, flip, cutout: corners, decisions and centres of a batch."""

    def __init__(self, side, padding, cutout, generator):
        self.side, self.padding, self.cutout, self.generator = side, padding, cutout, generator
        # By corner of the crop: along one axis, where the crop lies in the output, in the mirrored
        # output, and in the image.
        self.windows = [self.window(corner) for corner in range(2 * padding)]
        # By centre: along one axis, what the cutout covers.
        low = [centre - cutout // 2 for centre in range(side)]
        self.holes = [slice(max(0, start), min(side, start + cutout)) for start in low]

    def window(self, corner):
        shift, side = self.padding - corner, self.side
        start, stop = max(0, shift), min(side, side + shift)
        return slice(start, stop), slice(side - stop, side - start), slice(start - shift, stop - shift)

    def draw(self, count):
        """For each image: column and row of the crop's corner in the padded image (the authors
        never draw the last possible place), flip, column and row of the cutout's centre."""
        generator = self.generator
        corners = generator.integers(0, 2 * self.padding, (count, 2))
        flips = generator.integers(0, 2, (count, 1))
        centres = generator.integers(0, self.side, (count, 2))
        return np.concatenate([corners, flips, centres], axis=1).tolist()

    def place(self, image, draws, out, blank, mirrored=mirrored_pixels):
        """Writes the crop of `image`, maybe mirrored, with the cutout, into `out`. `blank` is an
        image of the mean colour; `mirrored(crop)` is the crop mirrored; None says that `image` is
        mirrored already where it has to be."""
        np.copyto(out, blank)
        column, row, flip, hole_column, hole_row = draws
        columns_out, columns_mirrored, columns_in = self.windows[column]
        rows_out, _, rows_in = self.windows[row]
        if not flip:
            out[rows_out, columns_out] = image[rows_in, columns_in]
        elif mirrored is None:
            columns_in = slice(self.side - columns_in.stop, self.side - columns_in.start)
            out[rows_out, columns_mirrored] = image[rows_in, columns_in]
        else:
            out[rows_out, columns_mirrored] = mirrored(image[rows_in, columns_in])
        # From an image, because NumPy is slow at repeating three bytes.
        hole = self.holes[hole_row], self.holes[hole_column]
        out[hole] = blank[hole]


class Inputs:
    """What a peer begins with: pictures, draws, and the base augmentation.

    `pictures` is uint8 [N, side, side, 3], `mean` the rounded mean colour.
    """

    def __init__(self, pictures, padding, cutout, mean, seed=5):
        self.pictures = pictures
        self.side = pictures.shape[1]
        self.mean = tuple(mean)
        # An image of the mean colour, to copy from.
        self.blank = np.empty_like(pictures[0])
        self.blank[:] = self.mean
        self.generator = np.random.default_rng(seed)
        self.walk = Walk(last_policy(), self.generator)
        self.base = Base(self.side, padding, cutout, self.generator)
        self.prepare()

    def prepare(self):
        """Tables, masks, whatever can be made once."""


class WithOps(Inputs, abc.ABC):
    """A peer whose ops can be compared one by one with ours."""

    @abc.abstractmethod
    def apply(self, call, picture):
        """One op on one image of uint8 [side, side, 3]: RGB and mask (False where exposed or
        erased; None when the peer has no mask)."""


class Peer(WithOps):
    """A peer that augments batch by batch. Its file has one such class, named `Augment`."""

    @abc.abstractmethod
    def batch(self, indices, out):
        """Writes the augmented images of these indices into `out`, uint8 [N, side, side, 3]; what
        was in it is overwritten. Answers it."""
