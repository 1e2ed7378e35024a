"""Servers that nobody has to start: one for all who want the same, which ends with the last of them."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import pickle
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from conftest import Home, Server, replace, wait_for
from private_users import SECONDS, STREAM, User, digest, lines, only

import pba_client
from pba_client import Client, Loader, PrivateServer, StartError, _keeper, serve


@pytest.fixture
def ordinary(start_server, pictures: Path) -> Server:  # type: ignore[no-untyped-def]
    return start_server("--dataset", f"pictures={pictures}")


def test_one_line_gives_the_bytes_of_any_server(home: Home, pictures: Path, ordinary: Server) -> None:
    with User(pictures, "say(*loader.client.urls); say(digest(3)); say(loader)") as user:
        url, found, shown = user.line(), user.line(), user.line()
        errors = user.end()
    # The wait for what is packed for the first time is told of, and nothing else.
    assert all(line.startswith('waiting: dataset "pictures"') for line in errors.splitlines()), errors
    assert found == digest(Loader(ordinary.url, "pictures", **STREAM).epoch(3))
    assert url.startswith(f"unix:{home.runtime}/pba-{os.getuid()}/") and "'pictures' train" in shown
    home.wait_until_left()


ENDS = [
    "",
    "raise KeyError('an end')",
    "os._exit(3)",
    "os.kill(os.getpid(), signal.SIGINT); time.sleep(600)",
    "os.kill(os.getpid(), signal.SIGHUP)",
    "os.kill(os.getpid(), signal.SIGKILL)",
    "epoch = loader.epoch(5); next(epoch); os.kill(os.getpid(), signal.SIGKILL)",
    "threading.Thread(target=lambda: [digest(n) for n in range(200)], daemon=True).start()",
]


def test_nothing_is_left_however_its_users_end(home: Home, pictures: Path) -> None:
    with contextlib.ExitStack() as stack:
        users = []
        for end in ENDS:
            code = f"say('ready'); sys.stdin.readline(); {end}"
            users.append(stack.enter_context(User(pictures, code)))
        for user in users:
            user.line()
        _, keeper, pba = only(home)
        for user in users:
            user.go_on()
            user.end()
        home.wait_until_left(keeper, pba)


def test_processes_that_start_at_once_share_a_server(home: Home, pictures: Path) -> None:
    code = "say(*loader.client.urls); say(digest(3)); sys.stdin.readline()"
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(User(pictures, code)) for _ in range(4)]
        urls, digests = [user.line() for user in users], [user.line() for user in users]
        assert len(set(urls)) == len(set(digests)) == 1
        folder, keeper, pba = only(home)
        assert lines(folder, "opening or importing") == 1
        assert len(home.processes()) == 2
        # The one that started it may be the first to go.
        for user in users[:3]:
            user.process.kill()
            user.process.wait()
        with serve(pictures) as server:
            assert server.url == urls[0]
        assert only(home) == (folder, keeper, pba)
        users[3].go_on()
        users[3].end()
        home.wait_until_left(keeper, pba)


def test_all_of_a_process_share_a_server(home: Home, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)
    with serve(pictures) as server:
        assert server.dataset == "pictures" and Path(server.log).is_file()
        assert repr(server) == f"<PrivateServer of 'pictures' at {server.url}>"
        for path in (pictures, str(pictures), "./pictures", "pictures/../pictures"):
            with serve(path) as other:
                assert other.url == server.url
        epochs = [Client(server.url).epoch("pictures", 3, **STREAM)]
        epochs += [Client(pictures).epoch("pictures", 3, **STREAM), Loader("./pictures", **STREAM).epoch(3)]
        assert len({digest(epoch) for epoch in epochs}) == 1
        # The built-in one is there as well.
        assert Loader(pictures, "shapes", split="test").classes[0] == "disc"
        only(home)


def test_without_a_path_the_built_in_dataset_is_served(home: Home) -> None:
    with serve() as server:
        assert server.dataset == "shapes"
        assert [found["name"] for found in Client(server.url).datasets()] == ["shapes"]
        folder = Path(server.log).parent
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / _keeper.SOCKET)]
        assert modes == [0o700, 0o700, 0o600]
    home.wait_until_left()


def listening(process: int) -> List[str]:
    """The TCP addresses on which a process listens, as Linux shows them."""
    sockets = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            sockets.add(os.readlink(descriptor))
    tables = [Path(f"/proc/{process}/net/{name}") for name in ("tcp", "tcp6")]
    # The last one is not there without IPv6.
    rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    assert any(name.startswith("socket:") for name in sockets)
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process listens on is found in Linux's /proc")
def test_a_private_server_has_no_port(home: Home, start_server) -> None:  # type: ignore[no-untyped-def]
    with serve() as server:
        assert len(list(Client(server.url).epoch("shapes", 0, split="test"))) == 16
        _, keeper, pba = only(home)
        assert listening(pba) == listening(keeper) == []
    other = start_server()
    assert listening(other._process.pid) == [f"0100007F:{other.address[1]:04X}"]


def test_closing_gives_it_up(home: Home, pictures: Path) -> None:
    first, second = serve(pictures), serve(pictures)
    _, keeper, pba = only(home)
    first.close()
    first.close()
    # A third process that leaves is noticed, and the second handle keeps the server.
    with User(pictures, "say('ready')") as user:
        user.line()
        user.end()
    assert only(home)[1:] == (keeper, pba) and Client(second.url).datasets()
    second.close()
    home.wait_until_left(keeper, pba)
    # The same again.
    with serve(pictures) as third:
        assert third.url == first.url and Client(third.url).datasets()


def test_what_is_packed_is_kept(home: Home, pictures: Path, tmp_path: Path) -> None:
    def packed(cache: Path) -> List[Tuple[str, int, int]]:
        files = sorted(path for path in cache.rglob("*.arrow*") if path.is_file())
        return [(str(path), path.stat().st_ino, path.stat().st_mtime_ns) for path in files]

    found = []
    for _ in range(2):
        with User(pictures, "say(digest(0))") as user:
            digests = user.line()
            user.end()
        home.wait_until_left()
        found.append((packed(home.cache / "pba"), digests))
    assert found[0] == found[1] and len(found[0][0]) >= 2
    (folder,) = (home.cache / "pba").iterdir()
    assert folder.name.startswith("pictures-")
    # Another folder, and other settings, are those of another server.
    with serve(pictures, cache=tmp_path / "here", threads=1) as other, serve(pictures) as server:
        assert digest(Client(other.url).epoch("pictures", 0, **STREAM)) == found[0][1] and other.url != server.url
    assert packed(tmp_path / "here")


def test_settings_are_those_of_the_server(
    home: Home, pictures: Path, monkeypatch: pytest.MonkeyPatch, start_server
) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StartError, match="(?s)status 2.*unexpected argument '--thread'"):
        serve(thread=1)
    with pytest.raises(TypeError, match="decides data_dir, listen itself"):
        serve(listen="127.0.0.1:0", data_dir="here")
    monkeypatch.setenv("PBA_THREADS", "many")
    with pytest.raises(StartError, match="(?s)'many' for 'PBA_THREADS"):
        serve()
    # What means a server of another kind, and the client, does not concern it.
    monkeypatch.setenv("PBA_THREADS", "")
    for name in ("PBA_DATA_DIR", "PBA_LISTEN", "PBA_SERVER", "PBA_CONFIG"):
        monkeypatch.setenv(name, "/nowhere")
    with serve(threads=1, streams_max=1) as server, Client(server.url).epoch("shapes", 0):
        with pytest.raises(pba_client.RefusedError, match="429"):
            Client(server.url, retry_seconds=0).epoch("shapes", 1)


def test_what_is_no_dataset_is_refused_as_by_any_server(home: Home, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(pba_client.RefusedError, match="notes"):
        Loader(tmp_path / "notes")


def test_threads_that_start_at_once_share_a_server(home: Home, pictures: Path) -> None:
    found: List[PrivateServer] = []
    threads = [threading.Thread(target=lambda: found.append(serve(pictures))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len({server.url for server in found}) == 1 and len(found) == 4
    _, keeper, pba = only(home)
    for server in found:
        server.close()
    home.wait_until_left(keeper, pba)


def test_changed_files_are_served_by_another(home: Home, copied: Path) -> None:
    loader = Loader(copied, **STREAM)
    before = digest(loader.epoch(3))
    replace(copied)
    with User(copied, "say(*loader.client.urls); say(digest(3)); sys.stdin.readline()") as user:
        url, found = user.line(), user.line()
        assert url != loader.client.urls[0] and found != before
        # The same in the process that has the earlier one, which goes on with it.
        with serve(copied) as server:
            assert server.url == url and digest(Client(server.url).epoch("copied", 3, **STREAM)) == found
        assert digest(loader.epoch(3)) == before


def test_servers_with_different_settings_share_what_is_packed(home: Home, pictures: Path) -> None:
    with serve(pictures, threads=1) as first, serve(pictures, threads=2) as second:
        assert first.url != second.url
        found = [digest(Client(server.url).epoch("pictures", 3, **STREAM)) for server in (second, first)]
        assert found[0] == found[1]
        (folder,) = (home.cache / "pba").iterdir()
        assert len(list(folder.glob("datasets/*/train.arrow"))) == 2  # with the built-in one


def test_closed_standard_streams_do_no_harm(home: Home, pictures: Path, tmp_path: Path) -> None:
    code = """
import os, sys, time
os.closerange(0, 3)
from pba_client import _private_join, serve
server = serve(sys.argv[1])
numbers = " ".join(str(opened.number) for opened in _private_join.OPENED)
with open(sys.argv[2] + "-", "w") as file:
    file.write(numbers)
os.rename(sys.argv[2] + "-", sys.argv[2])
time.sleep(600)
"""
    result = tmp_path / "result"
    process = subprocess.Popen([sys.executable, "-c", code, str(pictures), str(result)])
    try:
        wait_for(lambda: result.exists() or process.poll() is not None, "it does not start")
        assert min(map(int, result.read_text().split())) > 2
        with open(only(home)[0] / _keeper.LOCK) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        process.kill()
        process.wait()
    home.wait_until_left()


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_server_is_not_copied(home: Home, use: Any) -> None:
    server = PrivateServer.__new__(PrivateServer)
    with pytest.raises(TypeError, match="pass its .url instead"):
        use(server)
