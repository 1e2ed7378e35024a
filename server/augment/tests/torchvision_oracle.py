"""Policies and their ops by torchvision, or by Pillow alone, for torchvision.rs: requests on stdin, answers on stdout.

With the argument `torchvision` everything is done by its own classes and functions; with `pillow` ops
are done by Pillow, at magnitudes that are computed here. The first line out says which versions. Numbers
are unsigned 32-bit, little-endian, and text is UTF-8 after its length. A request starts with a byte:

P   ranges (`autoaugment`, `randaugment` or `wide`), op, bin, negative (0 or 1), width, height; then
    width * height * 3 bytes of RGB.
    Answer: the image after the op, width * height * 3 bytes of RGB.
D   policy (a name as of a schedule), count, seed, width, height. Only with `torchvision`.
    Answer: text, a line for each of so many images: the ops that were applied to it, in order, each as
    `Rotate:-4.5`, separated by spaces.
"""

import functools
import struct
import sys

from PIL import Image, ImageEnhance, ImageOps
from PIL import __version__ as pillow_version

BINS = {"autoaugment": 10, "randaugment": 31, "wide": 31}


def single(value):
    """A number rounded to single precision."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def linspace(end, bins, at, start=0.0):
    """`torch.linspace(start, end, bins)[at]` on a processor with fused multiplication and addition."""
    start, end = single(start), single(end)
    step = single(single(end - start) / (bins - 1))
    if at < bins // 2:
        return single(start + step * at)
    return single(end - step * (bins - 1 - at))


class Pillow:
    """Ops by Pillow on RGB images, in the words of torchvision's documentation."""

    version = f"pillow {pillow_version}"

    @staticmethod
    def apply(image, ranges, op, at, sign):
        bins, wide = BINS[ranges], ranges == "wide"
        width, height = image.size

        def magnitude(usual, of_wide):
            return sign * linspace(of_wide if wide else usual, bins, at)

        def affine(*coefficients):
            return image.transform(image.size, Image.Transform.AFFINE, coefficients)

        if op == "ShearX":
            return affine(1, magnitude(0.3, 0.99), 0, 0, 1, 0)
        if op == "ShearY":
            return affine(1, 0, 0, magnitude(0.3, 0.99), 1, 0)
        if op == "TranslateX":
            return affine(1, 0, -int(magnitude(150.0 / 331.0 * width, 32.0)), 0, 1, 0)
        if op == "TranslateY":
            return affine(1, 0, 0, 0, 1, -int(magnitude(150.0 / 331.0 * height, 32.0)))
        if op == "Rotate":
            return image.rotate(magnitude(30.0, 135.0))
        enhancers = {
            "Brightness": ImageEnhance.Brightness,
            "Color": ImageEnhance.Color,
            "Contrast": ImageEnhance.Contrast,
            "Sharpness": ImageEnhance.Sharpness,
        }
        if op in enhancers:
            return enhancers[op](image).enhance(1.0 + magnitude(0.9, 0.99))
        if op == "Posterize":
            return ImageOps.posterize(image, 8 - round(at / ((bins - 1) / (6 if wide else 4))))
        if op == "Solarize":
            return ImageOps.solarize(image, linspace(0.0, bins, at, start=255.0))
        simple = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}
        return simple[op](image)


class Torchvision:
    """Ops and policies by torchvision itself."""

    def __init__(self):
        import torch
        import torchvision
        from torchvision.transforms import autoaugment

        self.torch, self.module = torch, autoaugment
        self.version = f"torchvision {torchvision.__version__}, torch {torch.__version__}, pillow {pillow_version}"
        torch.set_num_threads(1)

    def policy(self, name):
        if name.startswith("autoaugment-"):
            return self.module.AutoAugment(self.module.AutoAugmentPolicy(name.partition("-")[2]))
        if name == "trivial-augment-wide":
            return self.module.TrivialAugmentWide()
        _, ops, magnitude = name.split(":")
        return self.module.RandAugment(int(ops), int(magnitude))

    @functools.lru_cache(None)
    def space(self, ranges, width, height):
        if ranges == "wide":
            return self.module.TrivialAugmentWide()._augmentation_space(31)
        if ranges == "randaugment":
            return self.module.RandAugment()._augmentation_space(31, (height, width))
        return self.module.AutoAugment()._augmentation_space(10, (height, width))

    def apply(self, image, ranges, op, at, sign):
        magnitudes, signed = self.space(ranges, *image.size)[op]
        magnitude = float(magnitudes[at].item()) if magnitudes.ndim > 0 else 0.0
        nearest = self.module.InterpolationMode.NEAREST
        return self.module._apply_op(image, op, magnitude * (sign if signed else 1), nearest, None)

    def draws(self, name, count, seed, size):
        """The ops and magnitudes that a policy chooses for so many images."""
        self.torch.manual_seed(seed)
        policy, image, applied = self.policy(name), Image.new("RGB", size), []
        # It would compute the same tables for each image.
        policy._augmentation_space = functools.lru_cache(None)(policy._augmentation_space)

        def recorded(image, op, magnitude, *_, **__):
            if op != "Identity":
                applied.append(f"{op}:{magnitude!r}")
            return image

        original, self.module._apply_op = self.module._apply_op, recorded
        try:
            for _ in range(count):
                policy(image)
                yield " ".join(applied)
                applied.clear()
        finally:
            self.module._apply_op = original


def main():
    oracle = Torchvision() if sys.argv[1:] == ["torchvision"] else Pillow()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(f"{oracle.version}\n".encode())
    sink.flush()

    def read(count):
        data = source.read(count)
        if len(data) != count:
            raise EOFError(f"{len(data)} of {count} bytes")
        return data

    def numbers(count):
        return struct.unpack(f"<{count}I", read(4 * count))

    def text():
        return read(*numbers(1)).decode()

    while request := source.read(1):
        if request == b"P":
            ranges, op = text(), text()
            at, negative, width, height = numbers(4)
            image = Image.frombytes("RGB", (width, height), read(3 * width * height))
            sink.write(oracle.apply(image, ranges, op, at, -1 if negative else 1).tobytes())
        elif request == b"D":
            name = text()
            count, seed, width, height = numbers(4)
            lines = "".join(f"{line}\n" for line in oracle.draws(name, count, seed, (width, height))).encode()
            sink.write(struct.pack("<I", len(lines)) + lines)
        else:
            raise ValueError(f"unknown request {request!r}")
        sink.flush()


main()
