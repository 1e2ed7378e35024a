"""From JPEG: decode, random resized crop, the policy, flip; each library as its experts would.

`from_jpeg:pillow` and so on use that library's peer for the policy; `from_jpeg:bare` only decodes,
with libjpeg-turbo. Files are in memory, and nothing decoded is kept. Crops are resized by bilinear
interpolation, with each library's default for shrinking: Pillow and torchvision widen the filter,
OpenCV does not.
"""

import importlib
import io
import math

import numpy as np

from measured import index_batches, measure
from policy import BATCH

SIDE = 224
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
used = []


def versions():
    return ", ".join(versions() for versions in used)


def draw_crop(generator, width, height):
    """Left, top, width and height of a crop, as torchvision's `RandomResizedCrop` draws it."""
    areas = generator.uniform(*AREA, 10) * width * height
    ratios = np.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1]), 10))
    for area, ratio in zip(areas.tolist(), ratios.tolist()):
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(0, width - w + 1)), int(generator.integers(0, height - h + 1)), w, h
    return 0, 0, width, height


def pillow(augment):
    from PIL import Image

    from pillow_best import MIRROR

    def one(file, calls, flip, out):
        image = Image.open(io.BytesIO(file))
        left, top, width, height = draw_crop(augment.generator, *image.size)
        # No draft mode: it halves, and no crop of these pictures is twice the result.
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        image = augment.augmented(image, calls)
        out[:] = np.asarray(image.transpose(MIRROR) if flip else image)

    return one


def opencv(augment):
    import cv2

    def one(file, calls, flip, out):
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
        left, top, width, height = draw_crop(augment.generator, image.shape[1], image.shape[0])
        image = cv2.resize(image[top:top + height, left:left + width], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        image = augment.augmented(image, calls)
        if flip:
            cv2.flip(image, 1, out)
        else:
            out[:] = image

    return one


def albumentations(augment):
    import albumentations as A
    import cv2

    crop = A.RandomResizedCrop((SIDE, SIDE), scale=AREA, ratio=RATIO, interpolation=cv2.INTER_LINEAR, p=1)
    mirror = A.HorizontalFlip(p=0.5)

    def one(file, calls, flip, out):
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
        image = crop(image=image)["image"]
        for call in calls:
            image = augment.op(image, call)
        out[:] = mirror(image=image)["image"]

    return one


def torchvision(augment):
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional as F

    from torchvision_v2 import op

    def one(file, calls, flip, out):
        image = decode_jpeg(file, mode=ImageReadMode.RGB)
        left, top, width, height = draw_crop(augment.generator, image.shape[2], image.shape[1])
        image = F.resized_crop(image, top, left, height, width, [SIDE, SIDE], antialias=True)
        for call in calls:
            image = op(image, call, augment.fill)
        # Planes first, as torch wants them.
        torch.from_numpy(out.reshape(3, SIDE, SIDE)).copy_(image.flip(-1) if flip else image)

    one.prepared = lambda file: torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return one


def bare(_):
    import simplejpeg

    used.append(lambda: f"simplejpeg {simplejpeg.__version__}, with libjpeg-turbo")
    decoded = np.empty((375, 500, 3), np.uint8)

    def one(file, calls, flip, out):
        simplejpeg.decode_jpeg(file, colorspace="RGB", buffer=decoded)

    return one


WAYS = {
    "pillow": (pillow, "pillow_best"),
    "opencv": (opencv, "opencv_numpy"),
    "albumentations": (albumentations, "albumentations_peer"),
    "torchvision": (torchvision, "torchvision_v2"),
    "bare": (bare, None),
}


class FromJpeg:
    def __init__(self, files, one, augment):
        self.files = [one.prepared(file) for file in files] if hasattr(one, "prepared") else files
        self.one, self.augment = one, augment
        self.out = np.zeros((BATCH, SIDE, SIDE, 3), np.uint8)
        self.batches = (self.batch(indices) for indices in index_batches(len(files)))

    def batch(self, indices):
        calls, flips = [()] * BATCH, [0] * BATCH
        if self.augment:
            calls = self.augment.walk.draw(BATCH, SIDE)
            flips = self.augment.generator.integers(0, 2, BATCH).tolist()
        for place, index in enumerate(indices.tolist()):
            self.one(self.files[index], calls[place], flips[place], self.out[place])
        return self.out

    def measure(self, seconds):
        return measure(seconds, self.batches)


def start(way, arguments):
    make, module = WAYS[way]
    files, *rest = arguments
    augment = None
    if module:
        peer = importlib.import_module(module)
        used.append(peer.versions)
        augment = peer.Augment(np.zeros((1, SIDE, SIDE, 3), np.uint8), *rest)
    return FromJpeg(files, make(augment), augment)
