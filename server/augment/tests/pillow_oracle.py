"""Applies ops with Pillow, for pillow.rs: requests on stdin, answers on stdout.

The first line in lists the op names; the first line out names Pillow's version. Numbers are
unsigned 32-bit, little-endian. A request starts with a byte:

C   calls, width, height; then for each call op, level, negative (0 or 1), column, row;
    then width * height * 4 bytes of RGBA.
    Answer: the image after all calls, width * height * 4 bytes of RGBA.
V   width, height, kind, left, top, box width, box height, side; then width * height * 3 bytes of
    RGB. Kind 0 cuts the box and resizes it to side x side. Kind 1 resizes the image until its
    shorter side is `left`, and cuts side x side from the centre, as torchvision does.
    Answer: side * side * 3 bytes of RGB.
R   count, width, height, length; then a path of so many bytes.
    Answer: so many images of the Parquet file, resized, width * height * 4 bytes of RGBA each.
"""

import io
import struct
import sys

from PIL import Image, ImageEnhance, ImageOps
from PIL import __version__ as pillow_version

LEVELS = 10
AFFINE = Image.Transform.AFFINE
ERASED = (125, 122, 113, 0)


def through_rgb(op, *parameters):
    return lambda image: op(image.convert("RGB"), *parameters).convert("RGBA")


def erase(image, size, centre):
    image = image.copy()
    width, height = image.size
    column, row = centre
    half = size // 2
    for y in range(max(0, row - half), min(height, row + half)):
        for x in range(max(0, column - half), min(width, column + half)):
            image.putpixel((x, y), ERASED)
    return image


def kernel(op, level, sign, centre):
    """The function of an image that an op at a level is."""

    def scaled(maximum):
        return level * maximum / LEVELS

    def affine(*coefficients):
        return lambda image: image.transform(image.size, AFFINE, coefficients)

    def enhance(enhancer):
        return lambda image: enhancer(image).enhance(scaled(1.8) + 0.1)

    if op == "Rotate":
        return lambda image: image.rotate(sign * int(scaled(30)))
    if op == "TranslateX":
        return affine(1, 0, sign * int(scaled(10)), 0, 1, 0)
    if op == "TranslateY":
        return affine(1, 0, 0, 0, 1, sign * int(scaled(10)))
    if op == "ShearX":
        return affine(1, sign * scaled(0.3), 0, 0, 1, 0)
    if op == "ShearY":
        return affine(1, 0, 0, sign * scaled(0.3), 1, 0)
    if op == "Brightness":
        return enhance(ImageEnhance.Brightness)
    if op == "Color":
        return enhance(ImageEnhance.Color)
    if op == "Contrast":
        return enhance(ImageEnhance.Contrast)
    if op == "Sharpness":
        return enhance(ImageEnhance.Sharpness)
    if op == "Posterize":
        return through_rgb(ImageOps.posterize, 4 - int(scaled(4)))
    if op == "Solarize":
        return through_rgb(ImageOps.solarize, 256 - int(scaled(256)))
    if op == "Invert":
        return through_rgb(ImageOps.invert)
    if op == "Equalize":
        return through_rgb(ImageOps.equalize)
    if op == "AutoContrast":
        return through_rgb(ImageOps.autocontrast)
    if op == "Cutout":
        return lambda image: erase(image, int(scaled(20)), centre)
    raise ValueError(f"unknown op {op!r}")


def real_images(path, count, size):
    import pyarrow.parquet

    rows = next(pyarrow.parquet.ParquetFile(path).iter_batches(count))
    # The Hugging Face layout: the image column is a struct of bytes and path.
    column = next(c for c in rows.columns if str(c.type).startswith("struct"))
    for value in column.to_pylist():
        image = Image.open(io.BytesIO(value["bytes"])).convert("RGBA")
        yield image.resize(size, Image.Resampling.BICUBIC)


def view(image, kind, left, top, box_width, box_height, side):
    def resized(image, size):
        # Columns first, as Pillow always did before version 13, which chooses the order by the size.
        columns = image.resize((size[0], image.height), Image.Resampling.BILINEAR)
        return columns.resize(size, Image.Resampling.BILINEAR)

    if kind == 0:
        return resized(image.crop((left, top, left + box_width, top + box_height)), (side, side))
    width, height = image.size
    if width <= height:
        size = left, int(left * height / width)
    else:
        size = int(left * width / height), left
    column, row = (int(round((length - side) / 2.0)) for length in size)
    return resized(image, size).crop((column, row, column + side, row + side))


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    names = source.readline().decode().strip().split(",")
    sink.write(f"pillow {pillow_version}\n".encode())
    sink.flush()

    def read(count):
        data = source.read(count)
        if len(data) != count:
            raise EOFError(f"{len(data)} of {count} bytes")
        return data

    def numbers(count):
        return struct.unpack(f"<{count}I", read(4 * count))

    while request := source.read(1):
        if request == b"C":
            calls, *size = numbers(3)
            kernels = []
            for _ in range(calls):
                op, level, negative, *centre = numbers(5)
                kernels.append(kernel(names[op], level, -1 if negative else 1, centre))
            image = Image.frombytes("RGBA", size, read(4 * size[0] * size[1]))
            for function in kernels:
                image = function(image)
            sink.write(image.tobytes())
        elif request == b"V":
            width, height, *parameters = numbers(8)
            image = Image.frombytes("RGB", (width, height), read(3 * width * height))
            sink.write(view(image, *parameters).tobytes())
        elif request == b"R":
            count, *size, length = numbers(4)
            for image in real_images(read(length).decode(), count, tuple(size)):
                sink.write(image.tobytes())
        else:
            raise ValueError(f"unknown request {request!r}")
        sink.flush()


main()
