"""Images of different sizes, compared with what Pillow makes of the same files."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Iterator, List

import numpy as np
import pytest
from conftest import REPOSITORY, Server
from PIL import Image

from pba_client import Client, Loader, RefusedError

IMAGES = REPOSITORY / "server" / "datasets" / "tests" / "all" / "images"
RESIZE, CROP = 256, 224


def files() -> List[Path]:
    """In the order of an image folder: by class, then by name."""
    jpegs = sorted(IMAGES.glob("*.jpg"))
    return [*jpegs, *sorted(IMAGES.glob("rgb*.png"))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("photos")
    for split in ("train", "test"):
        for file in files():
            place = folder / split / file.suffix[1:]
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    server = Server(tmp_path_factory.mktemp("data"), "--dataset", f"photos={folder}")
    yield server
    server.wait_idle()
    server.stop()


def centre(file: Path) -> np.ndarray:
    """What torchvision's Resize(256) and CenterCrop(224) make of a PIL image."""
    image = Image.open(file).convert("RGB")
    width, height = image.size
    if width <= height:
        size = (RESIZE, int(RESIZE * height / width))
    else:
        size = (int(RESIZE * width / height), RESIZE)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (int(round((side - CROP) / 2.0)) for side in image.size)
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


def test_the_evaluation_crop_is_that_of_pillow(photos: Server) -> None:
    with Client(photos.url).epoch("photos", 0, split="test", batch_size=5) as epoch:
        images = np.concatenate([np.array(batch.image) for batch in epoch])
    assert images.shape == (len(files()), CROP, CROP, 3)
    for file, image in zip(files(), images):
        assert np.array_equal(image, centre(file)), file.name


def test_training_images_have_one_size(photos: Server) -> None:
    loader = Loader(photos.url, "photos", "cifar10-pba", 200, batch_size=4)
    batches = [(np.array(batch.image), np.array(batch.label)) for batch in loader.epoch(199)]
    assert {image.shape[1:] for image, _ in batches} == {(CROP, CROP, 3)}
    labels = np.concatenate([label for _, label in batches])
    assert sorted(labels) == [file.suffix == ".png" for file in files()]


def test_they_are_described(photos: Server) -> None:
    about = next(entry for entry in Client(photos.url).datasets() if entry["name"] == "photos")
    split = about["splits"]["test"]
    assert split["images"] == "encoded" and split["shape"] is None
    assert split["sizes"] == {"height": [1, 61], "width": [1, 37]}


def test_a_loader_does_not_wait_if_a_replica_is_ready(photos: Server, start_server, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # which nothing is written to, so that it is being read until the server ends
    importing = start_server("--dataset", f"photos={pipe}", wait=False)
    loader = Loader([importing.url, photos.url], "photos", batch_size=1, world_size=2, drop_last=True)
    assert len(loader) == len(list(loader.epoch(0))) == len(files()) // 2
    assert Client(importing.url).dataset("photos")["state"] == "importing"


def test_a_split_that_cannot_be_read_says_why(start_server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "cut" / "train" / "a"
    folder.mkdir(parents=True)
    whole = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:-20])
    server = start_server("--dataset", f"cut={tmp_path / 'cut'}")
    with pytest.raises(RefusedError, match="train/a/cut.jpg: .*ends too early") as refusal:
        Loader(server.url, "cut")
    assert refusal.value.status == 422
