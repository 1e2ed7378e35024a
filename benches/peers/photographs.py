"""Draws JPEG files like photographs: `photographs(small, folder)`.

An enlarged small picture gives the large shapes and the colours; noise in octaves, each half as
coarse as the one before, gives the spectrum that photographs have, most of it in brightness. With
500x375 pixels, quality 96 and halved chroma, files have 80 to 130 kB or so, as such files have.
"""

import numpy as np
from PIL import Image

WIDTH, HEIGHT, QUALITY = 500, 375, 96
COUNT = 256
# Size of the squares of an octave in pixels, and its amplitude for brightness in levels of 255.
OCTAVES = {64: 16, 32: 12, 16: 9, 8: 7, 4: 5.5, 2: 4.5, 1: 2.8}
CHROMA = 0.35
# Drawing noise takes longest, so there are so many fields of it, which pictures combine.
FIELDS = 12
BICUBIC = Image.Resampling.BICUBIC


def enlarged(plane):
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((WIDTH, HEIGHT), BICUBIC))


def noise(generator):
    return sum(
        amplitude * enlarged(generator.standard_normal((-(-HEIGHT // size) + 1, -(-WIDTH // size) + 1)))
        for size, amplitude in OCTAVES.items())


def photograph(small, fields, generator):
    """One picture, uint8 [HEIGHT, WIDTH, 3], of a small one and fields of noise, moved and mirrored."""
    # How much texture a photograph has differs.
    strength = generator.uniform(1.35, 2.0)
    brightness, *chroma = (
        np.roll(fields[field], generator.integers(0, HEIGHT), 0)[:, ::generator.choice((1, -1))]
        for field in generator.permutation(len(fields))[:4])
    planes = [enlarged(small[..., channel]) + strength * (brightness + CHROMA * chroma[channel])
              for channel in range(3)]
    return np.clip(np.dstack(planes), 0, 255).astype(np.uint8)


def photographs(small, folder):
    """Writes `COUNT` files named by number, of the first small pictures, uint8 [N, h, w, 3]."""
    folder.mkdir()
    drawn = np.random.default_rng(COUNT)
    fields = [noise(drawn) for _ in range(FIELDS)]
    for number in range(COUNT):
        generator = np.random.default_rng(number)
        picture = Image.fromarray(photograph(small[number % len(small)], fields, generator))
        picture.save(folder / f"{number:04}.jpg", quality=QUALITY, subsampling="4:2:0")
