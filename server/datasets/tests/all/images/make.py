"""Makes the images beside this file, and their pixels as Pillow decodes them.

    python make.py      (Pillow 12, libjpeg-turbo 3)

NAME is the image; NAME.rgb is height and width as two little-endian 32-bit
integers, then the RGB bytes of Image.open(NAME).convert("RGB").
"""

import pathlib
import random
import struct

from PIL import Image, ImageDraw

HERE = pathlib.Path(__file__).parent
random.seed(1)


def picture(width, height):
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        box = sorted(random.sample(range(width), 2)), sorted(random.sample(range(height), 2))
        color = tuple(random.randrange(256) for _ in range(3))
        draw.ellipse((box[0][0], box[1][0], box[0][1], box[1][1]), fill=color)
    return image


def keep(name, image, **options):
    file = HERE / name
    image.save(file, **options)
    decoded = Image.open(file).convert("RGB")
    pixels = struct.pack("<II", decoded.height, decoded.width) + decoded.tobytes()
    (HERE / f"{name}.rgb").write_bytes(pixels)


odd, even = picture(37, 23), picture(32, 48)
keep("rgb_444.jpg", odd, quality=95, subsampling="4:4:4")
keep("rgb_422.jpg", odd, quality=80, subsampling="4:2:2")
keep("rgb_420.jpg", odd, quality=75, subsampling="4:2:0")
keep("rgb_420_even.jpg", even, quality=30, subsampling="4:2:0")
keep("rgb_progressive.jpg", odd, quality=60, progressive=True, optimize=True)
keep("rgb_restarts.jpg", odd, quality=75, restart_marker_blocks=1)
keep("gray.jpg", odd.convert("L"), quality=75)
keep("gray_progressive.jpg", even.convert("L"), quality=75, progressive=True)
keep("cmyk.jpg", odd.convert("CMYK"), quality=85)
keep("tall.jpg", picture(2, 61), quality=75)
keep("rgb.png", odd)
keep("rgba.png", Image.merge("RGBA", (*odd.split(), Image.linear_gradient("L").resize(odd.size))))
keep("gray.png", odd.convert("L"))
keep("gray_alpha.png", odd.convert("LA"))
keep("palette.png", odd.quantize(11))
keep("palette_transparent.png", odd.quantize(200), transparency=3)
keep("bilevel.png", odd.convert("1"))
one = Image.new("RGB", (1, 1), (7, 8, 9))
keep("one_pixel.jpg", one)
keep("one_pixel.png", one)
