"""DALI with its CPU operators, one thread, the policy as conditionals.

A step of the policy is one of a dozen branches, chosen image by image, as DALI's own `auto_aug`
does it; the operators are those of `auto_aug` too, with the paper's parameters. The five affine ops
are one branch, as a matrix says which. What is drawn comes from NumPy, because the library has no
walk that draws without replacement by probability. There is no mask: exposed pixels take a gray at
once, and later ops change them.

`dali_peer:jpeg` decodes a random crop of a JPEG, the crop alone where the decoder can, resizes it,
does the policy, and flips.
"""

import numpy as np
import nvidia.dali as dali
from nvidia.dali import fn, pipeline_def, types

from measured import compared, index_batches, measure
from policy import AFFINE, BATCH, LEVELS, PARAMETER, WithOps, affine_coefficients

BRANCHES = ["none", "affine", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "Invert",
            "Equalize", "AutoContrast", "Cutout"]
STEPS = 2
# Its affine operator fills with one number for all channels: the mean of the mean colour.
GRAY_FILL = 121.0
GRAY = np.array([0.299, 0.587, 0.114], np.float32)
BLUR = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
IDENTITY = np.zeros((3, 3), np.float32)
IDENTITY[1, 1] = 1


def versions():
    return f"DALI {dali.__version__} (CPU operators), NumPy {np.__version__}"


class Step:
    """The inputs of one step for a batch: which branch, and the parameters of each image."""

    def __init__(self, count, side):
        self.side = side
        self.branch = np.zeros(count, np.int32)
        self.matrix = np.zeros((count, 2, 3), np.float32)
        self.matrix[:] = np.eye(2, 3)
        self.factor = np.ones(count, np.float32)
        self.byte = np.zeros(count, np.int32)
        # Row and column of the cutout's corner, height and width.
        self.hole = np.zeros((count, 4), np.float32)

    def set(self, place, call, matrices):
        name, level, sign, column, row = call
        self.branch[place] = BRANCHES.index("affine" if name in AFFINE else name)
        value = PARAMETER[name](level)
        if name in AFFINE:
            self.matrix[place] = matrices[name, level, sign]
        elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
            self.factor[place] = value
        elif name == "Posterize":
            self.byte[place] = 256 - (1 << (8 - value))
        elif name == "Solarize":
            self.byte[place] = value
        elif name == "Cutout":
            top, left = max(0, row - value // 2), max(0, column - value // 2)
            self.hole[place] = (top, left, min(self.side, row + value // 2) - top,
                                min(self.side, column + value // 2) - left)

    def arrays(self):
        return [self.branch, self.matrix, self.factor, self.byte, self.hole]


def affine(image, step, fill):
    return fn.warp_affine(image, matrix=step[1], fill_value=GRAY_FILL, interp_type=types.INTERP_NN, inverse_map=True)


def sharpen(image, step, fill):
    kernel = step[2] * types.Constant(IDENTITY - BLUR) + types.Constant(BLUR)
    return fn.filter(image, kernel)


def contrast(image, step, fill):
    mean = fn.reductions.mean(image, axis_names="HW", keep_dims=True)
    centre = fn.reductions.sum(mean * types.Constant(GRAY), axis_names="C", keep_dims=True)
    return fn.cast_like(centre + (image - centre) * step[2], image)


def solarize(image, step, fill):
    kept = image < step[3]
    return kept * image + (kept ^ True) * (types.Constant(255, dtype=types.UINT8) - image)


def stretch(image, step, fill):
    low = fn.reductions.min(image, axis_names="HW", keep_dims=True)
    high = fn.reductions.max(image, axis_names="HW", keep_dims=True)
    some = (high - low) > 0
    scale = 255 / ((high - low) * some + types.Constant(255, dtype=types.UINT8) * (some ^ True))
    return fn.cast_like((image - low * some) * scale, image)


def erase(image, step, fill):
    return fn.erase(image, anchor=step[4][:2], shape=step[4][2:], axis_names="HW", fill_value=fill)


OPERATORS = [
    lambda image, step, fill: image,
    affine,
    lambda image, step, fill: fn.brightness(image, brightness=step[2]),
    lambda image, step, fill: fn.saturation(image, saturation=step[2]),
    contrast,
    sharpen,
    lambda image, step, fill: image & fn.cast(step[3], dtype=types.UINT8),
    solarize,
    lambda image, step, fill: types.Constant(255, dtype=types.UINT8) - image,
    lambda image, step, fill: fn.equalize(image),
    stretch,
    erase,
]


def select(image, step, fill, low=0, high=len(BRANCHES) - 1):
    """One of the operators, halving the range of branches, as `auto_aug` does."""
    if low == high:
        return OPERATORS[low](image, step, fill)
    middle = (low + high) // 2
    if step[0] <= middle:
        result = select(image, step, fill, low, middle)
    else:
        result = select(image, step, fill, middle + 1, high)
    return result


def source(callback, layouts):
    return fn.external_source(callback, num_outputs=len(layouts), layout=layouts, batch=True, no_copy=True)


# What the callback gives for each step, and for the base augmentation.
STEP_LAYOUTS = ["", "", "", "", ""]


@pipeline_def(enable_conditionals=True)
def augmented(callback, steps, side, fill):
    image, *rest = source(callback, ["HWC", *STEP_LAYOUTS * steps, "", "", ""])
    for step in range(steps):
        image = select(image, rest[5 * step:5 * step + 5], fill)
    start, flip, hole = rest[5 * steps:]
    image = fn.slice(image, start, types.Constant(np.array([side, side], np.int32)), axis_names="HW",
                     out_of_bounds_policy="pad", fill_values=fill)
    image = fn.flip(image, horizontal=flip)
    return fn.erase(image, anchor=hole[:2], shape=hole[2:], axis_names="HW", fill_value=fill)


@pipeline_def(enable_conditionals=True)
def one_op(callback, fill):
    image, *step = source(callback, ["HWC", *STEP_LAYOUTS])
    return select(image, step, fill)


@pipeline_def(enable_conditionals=True)
def from_jpeg(callback, side, fill):
    encoded, *rest = source(callback, ["", *STEP_LAYOUTS * STEPS, ""])
    image = fn.decoders.image_random_crop(encoded, device="cpu", output_type=types.RGB, random_area=[0.08, 1],
                                          random_aspect_ratio=[3 / 4, 4 / 3])
    image = fn.resize(image, resize_x=side, resize_y=side, interp_type=types.INTERP_LINEAR)
    for step in range(STEPS):
        image = select(image, rest[5 * step:5 * step + 5], fill)
    return fn.flip(image, horizontal=rest[-1])


class Augment(WithOps):
    def prepare(self):
        self.fill = [float(value) for value in self.mean]
        self.matrices = {}
        for op in AFFINE:
            for level in LEVELS:
                for sign in (1, -1):
                    coefficients = affine_coefficients(op, sign * PARAMETER[op](level), self.side)
                    self.matrices[op, level, sign] = np.array(coefficients, np.float32).reshape(2, 3)

    def steps(self, count):
        """The inputs of the steps of a batch, drawn."""
        steps = [Step(count, self.side) for _ in range(STEPS)]
        for place, calls in enumerate(self.walk.draw(count, self.side)):
            for step, call in zip(steps, calls):
                step.set(place, call, self.matrices)
        return [array for step in steps for array in step.arrays()]

    def inputs(self, indices):
        draws = np.array(self.base.draw(len(indices)))
        size = self.base.cutout
        low = np.maximum(0, draws[:, [4, 3]] - size // 2)
        high = np.minimum(self.side, draws[:, [4, 3]] - size // 2 + size)
        return [self.pictures[indices], *self.steps(len(indices)),
                np.ascontiguousarray(draws[:, [1, 0]] - self.base.padding, np.int32),
                np.ascontiguousarray(draws[:, 2], np.int32),
                np.ascontiguousarray(np.concatenate([low, high - low], axis=1), np.float32)]

    def apply(self, call, picture):
        step = Step(1, self.side)
        step.set(0, call, self.matrices)
        self.asked = [picture[None], *step.arrays()]
        if not hasattr(self, "single"):
            self.single = one_op(callback=lambda: self.asked, fill=self.fill, **how(1))
            self.single.build()
        (out,) = self.single.run()
        return out.at(0), None


def how(count):
    """One thread, and nothing made ahead: everybody's core is one."""
    return {"batch_size": count, "num_threads": 1, "device_id": None, "exec_pipelined": False,
            "exec_async": False, "prefetch_queue_depth": 1}


class Dali:
    def __init__(self, pipeline, augment=None):
        self.pipeline, self.augment = pipeline, augment
        pipeline.build()

    def batches(self):
        while True:
            (out,) = self.pipeline.run()
            yield out.as_array()

    def measure(self, seconds):
        return measure(seconds, self.batches())

    def apply(self, op, level, sign, column, row, picture):
        return compared(self.augment, op, level, sign, column, row, picture)


def start(way, arguments):
    pictures, *rest = arguments
    batches = index_batches(len(pictures))
    if way == "jpeg":
        side = 224
        augment = Augment(np.zeros((1, side, side, 3), np.uint8), *rest)
        files = [np.frombuffer(file, np.uint8) for file in pictures]

        def inputs():
            flips = augment.generator.integers(0, 2, BATCH).astype(np.int32)
            return [[files[index] for index in next(batches)], *augment.steps(BATCH), flips]

        return Dali(from_jpeg(callback=inputs, side=side, fill=augment.fill, **how(BATCH)))
    augment = Augment(*arguments)
    return Dali(augmented(callback=lambda: augment.inputs(next(batches)), steps=STEPS, side=augment.side,
                          fill=augment.fill, **how(BATCH)), augment)
