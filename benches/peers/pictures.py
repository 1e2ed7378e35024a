"""Writes the pictures that everybody augments, from a server: `pictures.py URL DATASET FOLDER [jpeg]`.

`32.rgb` holds the training split as it is; `224.rgb` the first 1,024 of it at 224x224, bicubic;
`jpeg`, when asked for, is a folder of files like photographs. Prints the rounded mean colour.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

from pba_client import Client

from photographs import COUNT, photographs

LARGE_SIDE, LARGE_COUNT = 224, 1024


def main():
    url, dataset, folder, *more = sys.argv[1:]
    folder = pathlib.Path(folder)
    large = 0
    with (folder / "32.rgb").open("wb") as small_file, (folder / f"{LARGE_SIDE}.rgb").open("wb") as large_file:
        with Client(url).epoch(dataset, 0, schedule="identity", shuffle=False) as epoch:
            for batch in epoch:
                assert batch.image.shape[1:] == (32, 32, 3), batch.image.shape
                small_file.write(np.ascontiguousarray(batch.image))
                for pixels in batch.image[: LARGE_COUNT - large]:
                    image = Image.fromarray(pixels).resize((LARGE_SIDE, LARGE_SIDE), Image.Resampling.BICUBIC)
                    large_file.write(image.tobytes())
                    large += 1
            mean = epoch.metadata.mean
    if more:
        photographs(np.fromfile(folder / "32.rgb", np.uint8, COUNT * 3072).reshape(-1, 32, 32, 3), folder / "jpeg")
    print(",".join(str(round(255 * value)) for value in mean))


main()
