"""What a private server depends on: paths, programs, folders, and the state of files."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any, Tuple

import pytest
from conftest import Home, program, replace, wait_for

from pba_client import Client, Loader, StartError, _private_plan, _private_state, serve


def test_a_path_without_a_dataset_is_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "cifar", f"{tmp_path}/cifar"):
        for use in (Loader, Client, serve):
            with pytest.raises(FileNotFoundError, match="no dataset at this path: '.*/cifar'"):
                use(path)
    with pytest.raises(TypeError, match="dataset= is missing: the name of a dataset of the server, whose URL is"):
        Loader("http://127.0.0.1:8080")
    # A list is one of servers.
    with pytest.raises(ValueError, match="it is a path"):
        Client([str(tmp_path)])
    # What could mean two things is refused.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "localhost").mkdir()
    with pytest.raises(ValueError, match="write http://localhost or ./localhost"):
        Loader("localhost", "shapes")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{home.runtime}/server")
        with pytest.raises(ValueError, match="is written unix:.*/server"):
            Client(f"{home.runtime}/server")
    assert not home.folders()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("CIFAR 10 (new)", "CIFAR-10-new-"),
        (".hidden", "hidden"),
        ("none", "data"),
        ("shapes", "data"),
        ("f" * 64, "data"),
        ("ü", "data"),
        ("train.parquet", "train"),
        ("x" * 100, "x" * 64),
    ],
)
def test_names_of_datasets(tmp_path: Path, path: str, name: str) -> None:
    place = tmp_path / path
    place.touch() if place.suffix else place.mkdir()
    assert _private_plan.data_of(place) == (str(place), name)


def test_no_program_is_found(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (str(tmp_path / "none"), str(tmp_path)):
        monkeypatch.setenv("PBA_BIN", value)
        with pytest.raises(StartError, match=f"PBA_BIN is '{value}', which is no program"):
            serve()
    monkeypatch.delenv("PBA_BIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    package = tmp_path / "checkout/client/python/src/pba_client"
    monkeypatch.setattr(_private_plan, "__file__", str(package / "_private_plan.py"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "venv" / name))
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(
        StartError, match=f"PBA_BIN is not set, .* none at {tmp_path}/venv/scripts/pba, {tmp_path}/bin/pba. Install the wheel"
    ):
        serve()

    def place(path: str, time: int = 0) -> str:
        whole = tmp_path / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.touch(0o755)
        os.utime(whole, (time, time))
        return str(whole)

    # Each before those above.
    assert place("bin/pba") == _private_plan.find_program()
    assert place("venv/scripts/pba") == _private_plan.find_program()
    # What pip notes of a wheel, relative to the folder of packages.
    notes = Path(place("site/pba_server-0.1.0.dist-info/RECORD"))
    notes.with_name("METADATA").write_text("Metadata-Version: 2.1\nName: pba-server\nVersion: 0.1.0\n")
    notes.write_text("../user/bin/pba,,\npba_server-0.1.0.dist-info/METADATA,,\n")
    importlib.invalidate_caches()
    assert place("user/bin/pba") == _private_plan.find_program()
    place("checkout/Cargo.toml")
    assert place("checkout/target/debug/pba", 1) == _private_plan.find_program()
    assert place("checkout/target/release/pba", 2) == _private_plan.find_program()
    place("checkout/target/debug/pba", 3)
    assert _private_plan.find_program().endswith("debug/pba")
    assert place("pba") == _private_plan.find_program()
    monkeypatch.setenv("PBA_BIN", place("mine"))
    assert place("mine") == _private_plan.find_program()


def test_a_folder_that_others_may_use_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = home.runtime / f"pba-{os.getuid()}"
    root.mkdir(mode=0o755)
    with pytest.raises(StartError, match=f"{root} is not this user's alone: it is drwxr-xr-x"):
        serve()
    root.rmdir()
    root.symlink_to(tmp_path)
    with pytest.raises(StartError, match=f"{root} is not this user's alone: it is lrwx"):
        serve()
    root.unlink()
    root.touch()
    with pytest.raises(StartError, match="is not this user's alone: it is -rw"):
        serve()
    root.unlink()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (home.runtime / "pba-12345").mkdir(mode=0o700)
    with pytest.raises(StartError, match="of the user .*; expected drwx------ of 12345"):
        serve()


def test_folders_that_cannot_be_used_are_named(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody can write there, not even root.
    monkeypatch.setattr(_private_plan, "root_folder", lambda: "/dev/null/pba-0")
    with pytest.raises(StartError, match="cannot make the folder /dev/null/pba-0 .*; set XDG_RUNTIME_DIR"):
        serve()
    monkeypatch.undo()
    monkeypatch.setenv("PBA_BIN", str(program(tmp_path, "")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    (tmp_path / ("x" * 100)).mkdir()
    with pytest.raises(StartError, match="is longer than the 10. bytes of a socket's path; set XDG_RUNTIME_DIR"):
        serve()


def test_where_the_folders_are(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _private_plan.root_folder() == f"{home.runtime}/pba-{os.getuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setattr(_private_plan.tempfile, "tempdir", str(tmp_path))
    assert _private_plan.root_folder() == f"{tmp_path}/pba-{os.getuid()}"
    assert _private_plan.cache_folder(None) == f"{home.cache}/pba"
    monkeypatch.setenv("PBA_CACHE", f"{tmp_path}/packed")
    assert _private_plan.cache_folder(None) == f"{tmp_path}/packed" and _private_plan.cache_folder("~/here") == os.path.expanduser("~/here")
    monkeypatch.setenv("PBA_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _private_plan.cache_folder(None) == os.path.expanduser("~/.cache/pba")


def test_a_cache_without_a_home_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of the name ``~`` is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the system does not know the user
    with pytest.raises(StartError, match="'~/.cache/pba', and there is no such home .*; set PBA_CACHE to a folder"):
        serve()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("PBA_CACHE", str(tmp_path / "packed"))
    assert _private_plan.cache_folder(None) == str(tmp_path / "packed")
    # Not even root can write there.
    for given in ({}, {"cache": "/dev/null/c"}):
        monkeypatch.setenv("PBA_CACHE", "/dev/null/c")
        with pytest.raises(StartError, match="cannot make the folder /dev/null/c .*; set PBA_CACHE .*, or pass cache="):
            serve(**given)


def test_other_systems_are_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(StartError, match="needs Linux or macOS, and this is win32"):
        serve()


def test_the_state_of_files(pictures: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> Tuple[str, str]:
        return _private_plan.state_of(str(copied))

    def changes() -> bool:
        nonlocal found
        before, found = found, state()
        return found[0] != before[0] and found[1] != before[1]

    found = state()
    for name in (".hidden.png", "notes.md", "train/cat/00.png.json"):
        (copied / name).touch()
    assert not changes()
    (copied / "train/empty").mkdir()
    assert changes()
    (copied / "train/dog/30.PNG").symlink_to("00.png")
    assert changes()
    (copied / "train/circle").symlink_to("..")
    assert changes()
    (copied / "train/nowhere.png").symlink_to("nowhere")
    assert changes()
    place, times = copied / "test/dog/03.png", os.stat(copied / "test/dog/03.png")
    wait_for(lambda: _touched(copied / ".tick") > times.st_ctime_ns, "the clock of files stands still")
    place.write_bytes(place.read_bytes()[::-1])
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changes()
    # Of a folder with more files, not all are looked at; those that come and go are noticed in any case.
    monkeypatch.setattr(_private_state, "FILES_MAX", 3)
    assert changes() and not changes()
    replace(copied)
    assert changes()
    (copied / "train/dog/29.png").unlink()
    assert changes()
    # A file alone; and none.
    for path in ("train/cat/01.png", "nothing"):
        assert len(set(_private_plan.state_of(str(copied / path)))) == 2
    place = copied / "train/cat/01.png"
    before = _private_plan.state_of(str(place))
    place.write_bytes(b"other")
    assert _private_plan.state_of(str(place))[0] != before[0]


def _touched(path: Path) -> int:
    path.write_bytes(b"")
    return path.stat().st_ctime_ns


@pytest.mark.parametrize("urls", ["nosuch", "file:///data/odd", ["./odd/base.parquet"], b"./odd", ""])
def test_how_a_path_is_written_is_said(urls: Any) -> None:
    with pytest.raises(TypeError, match=r"dataset= is missing.*a single one, as text that begins with /, ./ or ~, or"):
        Loader(urls)


def test_a_path_that_is_no_text_is_named(home: Home, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff")
    for use in (Loader, serve):
        with pytest.raises(ValueError, match=r"has to be UTF-8, and b'.*odd-\\xff' is not"):
            use(path)
