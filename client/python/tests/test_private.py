"""Servers that nobody has to start: one for all who want the same, which ends with the last of them."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List, Tuple

import pytest
from conftest import Home, Server, is_alive, program, replace, wait_for

import pba_client
from pba_client import Client, Loader, PrivateServer, StartError, _keeper, _private, _private_join, _private_plan, serve

# Of 60 images, 4 batches.
STREAM = {"schedule": "cifar10-pba", "epochs": 200, "batch_size": 16}
SECONDS = 60


def digest(epoch) -> str:  # type: ignore[no-untyped-def]
    """Of all that an epoch holds."""
    whole = hashlib.sha256()
    for batch in epoch:
        for column in (batch.image, batch.label, batch.index):
            whole.update(column.tobytes())
    return whole.hexdigest()


class User:
    """Another process, which uses a private server and then waits. What it has to say, it prints.

    Its names: ``loader`` of the pictures, ``digest`` of an epoch's number, and ``say``.
    """

    BEGIN = """
import hashlib, os, signal, sys, threading, time
from pba_client import Client, Loader
def say(*words):
    print(*words, flush=True)
def digest(number):
    whole = hashlib.sha256()
    for batch in loader.epoch(number):
        for column in (batch.image, batch.label, batch.index):
            whole.update(column.tobytes())
    return whole.hexdigest()
loader = Loader(sys.argv[1], schedule="cifar10-pba", epochs=200, batch_size=16)
"""

    def __init__(self, pictures: Path, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + code, str(pictures)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr.read()
        return line

    def go_on(self) -> None:
        """Ends its wait for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Waits for its end, and returns its errors."""
        return self.process.communicate(timeout=SECONDS)[1]

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def only(home: Home) -> Tuple[Path, int, int]:
    """The only private server that there is: its folder, its keeper and itself."""
    (folder,) = home.folders()
    ids = [int((folder / name).read_text()) for name in (_keeper.KEEPER_PID, _keeper.PBA_PID)]
    assert all(map(is_alive, ids))
    return folder, ids[0], ids[1]


def lines(folder: Path, text: str) -> int:
    """How often a text is in the log."""
    return (folder / _keeper.LOG).read_text().count(text)


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


def fork_and_read(loader: Loader, queue) -> None:  # type: ignore[no-untyped-def]
    queue.put(digest(loader.epoch(3)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks in a process with threads
def test_workers_use_their_parents_server(home: Home, pictures: Path, method: str) -> None:
    loader = Loader(pictures, **STREAM)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=fork_and_read, args=(loader, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    digests = [queue.get(timeout=SECONDS) for _ in workers]
    for worker in workers:
        worker.join(SECONDS)
    queue.close()
    queue.join_thread()
    assert set(digests) == {digest(loader.epoch(3))}
    only(home)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_path_in_pytorch(home: Home, pictures: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")
    from torch.utils.data import DataLoader

    from pba_client.torch import EpochDataset

    data = EpochDataset(pictures, **STREAM)
    data.set_epoch(3)
    found = [label.tolist() for _, label in DataLoader(data, batch_size=None, num_workers=2)]
    assert found == [batch.label.tolist() for batch in Loader(pictures, **STREAM).epoch(3)]
    only(home)


def test_what_was_forked_off_keeps_no_server(home: Home, pictures: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    time.sleep(600)
say(child); sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)
"""
    with User(pictures, code) as user:
        child = int(user.line())
        _, keeper, pba = only(home)
        user.go_on()
        user.process.wait(SECONDS)
        try:
            home.wait_until_left(keeper, pba)
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_was_forked_off_can_have_its_own(home: Home, pictures: Path) -> None:
    code = """
if os.fork() == 0:
    loader = Loader(sys.argv[1], schedule="cifar10-pba", epochs=200, batch_size=16)
    say(os.getpid()); sys.stdin.readline(); say(digest(3)); os._exit(0)
time.sleep(600)
"""
    with User(pictures, code) as user:
        child = int(user.line())
        found = only(home)
        user.process.kill()
        user.process.wait()
        with serve(pictures) as server:
            expected = digest(Client(server.url).epoch("pictures", 3, **STREAM))
        assert only(home) == found and is_alive(child)
        user.go_on()
        assert user.line() == expected
    home.wait_until_left(*found[1:])


def test_a_server_ends_with_its_keeper(home: Home, pictures: Path) -> None:
    servers = [serve(pictures)]
    for number in (signal.SIGKILL, signal.SIGTERM):
        folder, keeper, pba = only(home)
        os.kill(keeper, number)
        # From then on another may be wanted.
        wait_for(_private._LIFELINES[str(folder)].is_cut, "the keeper does not leave")
        servers.append(serve(pictures))
        assert servers[-1].url == servers[0].url and Client(servers[-1].url).datasets()
        assert only(home)[0] == folder and set(only(home)[1:]).isdisjoint((keeper, pba))
        wait_for(lambda pba=pba: not is_alive(pba), "the server outlives its keeper")
    for server in servers:
        server.close()
    home.wait_until_left()


def test_a_server_that_dies_is_started_again(home: Home, pictures: Path) -> None:
    with serve(pictures) as server:
        expected = digest(Client(server.url).epoch("pictures", 3, **{**STREAM, "batch_size": 1}))
        epoch = Client(server.url).epoch("pictures", 3, **{**STREAM, "batch_size": 1})
        whole = hashlib.sha256()
        folder, keeper, pba = only(home)
        for batch in epoch:
            if batch.number == 20:
                os.kill(pba, signal.SIGKILL)
                wait_for(lambda: not is_alive(pba), "it lives")
            for column in (batch.image, batch.label, batch.index):
                whole.update(column.tobytes())
        assert whole.hexdigest() == expected and epoch.resumes > 0
        assert only(home)[1] == keeper and only(home)[2] != pba
        assert lines(folder, "keeper: pba: it ended by signal 9") == 1
    home.wait_until_left()


@pytest.mark.parametrize("use", [lambda url: Client(url).datasets(), lambda url: Loader(url, "pictures", **STREAM)])
def test_the_first_contact_waits_for_a_server_that_is_started_again(
    home: Home, pictures: Path, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its address is not mistyped; the warning says what happens, and advises nothing."""
    with serve(pictures) as server:
        keeper = only(home)[1]
        for others in (False, True):
            caplog.clear()
            folder, _, pba = only(home)
            os.kill(pba, signal.SIGKILL)
            wait_for(lambda pba=pba: not is_alive(pba), "it lives")
            with pytest.MonkeyPatch.context() as patch:
                if others:
                    patch.setattr(_private, "_LIFELINES", {})  # as in another process
                assert use(server.url)
            warnings = [text for text in caplog.messages if "could not be" in text]
            assert warnings and all(
                re.search("refused|no such file", text) and "; the private server is being started again; try" in text
                for text in warnings
            ), caplog.text
            assert only(home)[1] == keeper
    home.wait_until_left()
    with pytest.raises(pba_client.UnreachableError, match="the private server has ended; make the Loader again, or"):
        use(server.url)


def test_a_server_is_not_started_again_with_other_files(home: Home, copied: Path) -> None:
    """Those who began before the change do not go on with what they did not begin with."""
    with serve(copied) as server:
        folder, keeper, pba = only(home)
        replace(copied)
        os.kill(pba, signal.SIGKILL)
        with pytest.raises(pba_client.ChangedError, match="have changed since it was started"):
            Client(server.url, retry_seconds=SECONDS).datasets()
        wait_for(lambda: not is_alive(keeper), "the keeper goes on")
        assert "the files of its dataset have changed" in Path(server.log).read_text()
    with serve(copied) as other:
        assert other.url != server.url and Client(other.url).datasets()


def test_a_server_that_always_dies_is_given_up(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('listening on unix:here', flush=True); time.sleep(0.1); print('I die', file=sys.stderr)"
    monkeypatch.setenv("PBA_BIN", program(tmp_path, code))
    server = serve()
    wait_for(lambda: not home.processes(), "it is started for ever")
    (folder,) = home.folders()
    wait_for(lambda: [path.name for path in folder.iterdir()] == ["log"], "more than the log is left")
    text = Path(server.log).read_text()
    assert text.count("I die") == _keeper.DEATHS_MAX + 1 and text.endswith("6 times in a row\n")


def test_a_keeper_that_says_nothing_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        _, keeper, _ = only(home)
        os.kill(keeper, signal.SIGSTOP)
        monkeypatch.setattr(_private, "_LIFELINES", {})  # as in another process
        monkeypatch.setattr(_private_join, "JOIN_SECONDS", 0.5)
        try:
            with pytest.raises(StartError, match=r"the keeper of .* did not answer within 0.5 seconds"):
                serve()
        finally:
            os.kill(keeper, signal.SIGCONT)
            monkeypatch.undo()
            server.close()
            home.wait_until_left()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.exit('no room')", r"(?s)it ended with status 1; the end of its log, .*/log:\nno room"),
        ("os.kill(os.getpid(), 9)", "it ended by signal 9"),
    ],
)
def test_why_it_does_not_start_is_said(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    monkeypatch.setenv("PBA_BIN", program(tmp_path, code))
    with pytest.raises(StartError, match=says):
        serve()
    (folder,) = home.folders()
    wait_for(lambda: [path.name for path in folder.iterdir()] == ["log"], "more than the log is left")
    # What is left does not matter to the next, which may be another's.
    with pytest.raises(StartError, match=says):
        serve()


def test_why_its_keeper_does_not_start_is_said(home: Home) -> None:
    plan = _private_plan.plan_of(None, None, {})
    folder = Path(plan.folder)
    for made in (folder.parent, folder):
        made.mkdir(mode=0o700)
    (folder / _keeper.LIFELINE).mkdir()
    with pytest.raises(StartError, match=f"its keeper failed in {folder}: address already in use; the end of its log"):
        serve()
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    says = "its keeper failed in here: no space left on device; set XDG_RUNTIME_DIR to a folder with more room"
    assert _keeper.told(error, "here") == says
    # Where there is no room, there is none for the log.
    (folder / _keeper.LOG).write_text("")
    failure = _private_join._failure(plan, _keeper.FAILED + b"no room\n")
    assert str(failure).endswith(f"no room; its log, {folder}/log, is empty")


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


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:  # type: ignore[type-arg]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("untied", [False, True])
def test_a_guard_ends_a_process_with_its_parent(sleeper, untied: bool) -> None:  # type: ignore[no-untyped-def]
    """As where the system does not."""
    code = "import os, sys; from pba_client import _keeper; untie = _keeper.guard(int(sys.argv[1]))\n"
    code += "untie()\n" if untied else "os.kill(os.getpid(), 9)\n"
    ended = subprocess.run([sys.executable, "-c", code, str(sleeper.pid)], timeout=SECONDS)
    assert ended.returncode == (0 if untied else -9)
    if untied:
        assert sleeper.poll() is None
    else:
        assert sleeper.wait(SECONDS) == -9


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


def test_what_has_the_number_of_a_closed_descriptor_is_left_alone(home: Home, pictures: Path) -> None:
    """A process that becomes a daemon closes all descriptors, and others get their numbers."""
    with serve(pictures) as server, serve() as other:
        client = Client(server.url, retry_seconds=SECONDS)
        assert client.datasets()
        reads, writes = os.pipe()
        os.write(writes, b"its user's")
        numbers = [lifeline.connection.number for lifeline in _private._LIFELINES.values()]
        for number in numbers:
            os.dup2(reads, number)
        try:
            # The keepers have lost their users.
            home.wait_until_left()
            assert client.datasets()
            other.close()
            assert os.read(numbers[0], 100) == b"its user's"
            assert all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in numbers)
        finally:
            for number in (reads, writes, *numbers):
                os.close(number)


def test_what_is_forked_off_during_a_start_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    lifeline = _private_join._raised(ours.detach())
    reads, writes = os.pipe()
    children: List[int] = []

    def fork() -> float:
        if not children:
            children.append(os.fork())
            if children == [0]:
                os.close(writes)
                theirs.close()
                os.read(reads, 1)
                os._exit(0)
        return 0.0

    monkeypatch.setattr(_private_join, "time", SimpleNamespace(monotonic=fork))
    with theirs:
        try:
            theirs.sendall(_keeper.READY + b"1 2\n")
            assert _private_join._answer(lifeline, SECONDS) == _keeper.READY + b"1 2\n"
            lifeline.close()
            theirs.settimeout(SECONDS)
            assert theirs.recv(1) == b"", "the child keeps it open"
        finally:
            for number in (writes, reads):
                os.close(number)
            os.waitpid(children[0], 0)


def remove(folder: Path, how: str) -> None:
    if how == "folder":
        shutil.rmtree(folder)
    elif how == "files":
        for path in folder.iterdir():
            path.unlink()
    else:
        (folder / how).unlink()


@pytest.mark.parametrize("how", ["folder", "files", _keeper.SOCKET])
def test_a_folder_that_was_removed_is_made_again(home: Home, pictures: Path, how: str) -> None:
    with serve(pictures) as first:
        folder, keeper, pba = only(home)
        remove(folder, how)
        with serve(pictures) as second:
            assert second.url == first.url and Client(second.url).datasets()
            found = only(home)
            # Of the files alone, the keeper makes its own again, unless another process is faster.
            stays = found[1] == keeper
            assert found[2] != pba and (how == "files" or stays == (how == _keeper.SOCKET))
            # The one before it ends, and removes nothing of this one.
            wait_for(lambda: not is_alive(pba), "the server is left")
            wait_for(lambda: stays or not is_alive(keeper), "the keeper is left")
            assert only(home) == found and Client(second.url).datasets()
        # Both are the new one's now.
        assert Client(first.url).datasets()
    home.wait_until_left()


@pytest.mark.parametrize("names", [[_keeper.LIFELINE], [_keeper.LOCK], [_keeper.LIFELINE, _keeper.LOCK]])
def test_a_keeper_is_found_again_whose_files_were_removed(home: Home, pictures: Path, names: List[str]) -> None:
    with serve(pictures) as server:
        folder, keeper, pba = only(home)
        for name in names:
            remove(folder, name)
        with User(pictures, "say(*loader.client.urls); say(digest(3)); sys.stdin.readline()") as user:
            assert user.line() == server.url
            assert user.line() == digest(Client(server.url).epoch("pictures", 3, **STREAM))
            wait_for(lambda: (folder / _keeper.LOCK).exists(), "the lock is not made again")
            if _keeper.LOCK not in names:
                assert only(home) == (folder, keeper, pba)
    home.wait_until_left(keeper, pba)


def test_a_keeper_that_is_in_the_way_of_another_leaves(home: Home, pictures: Path) -> None:
    """As where all by which it is found was removed, and another process was faster."""
    with serve(pictures) as first:
        _, keeper, pba = only(home)
        os.kill(keeper, signal.SIGSTOP)
        for name in (_keeper.LIFELINE, _keeper.LOCK):
            remove(Path(first.log).parent, name)
        with User(pictures, "say(digest(3)); sys.stdin.readline()") as user:
            # Of the other one.
            wait_for(lambda: (Path(first.log).parent / _keeper.LIFELINE).exists(), "there is no other")
            os.kill(keeper, signal.SIGCONT)
            assert user.line() == digest(Client(first.url).epoch("pictures", 3, **STREAM))
            assert set(only(home)[1:]).isdisjoint((keeper, pba))
    home.wait_until_left(keeper, pba)


@pytest.mark.parametrize("how", ["kill", "folder"])
def test_a_loader_joins_again(home: Home, pictures: Path, how: str) -> None:
    loader = Loader(pictures, **STREAM, retry_seconds=SECONDS)
    expected = digest(loader.epoch(3))
    folder, keeper, pba = only(home)
    epoch = loader.epoch(4)
    whole = [next(epoch).index.tobytes()]
    if how == "folder":
        remove(folder, how)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(pba), "the server outlives its keeper")
    whole += [batch.index.tobytes() for batch in epoch]
    assert whole == [batch.index.tobytes() for batch in loader.epoch(4)]
    assert digest(loader.epoch(3)) == expected
    assert only(home)[0] == folder and set(only(home)[1:]).isdisjoint((keeper, pba))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_worker_joins_again(home: Home, pictures: Path) -> None:
    loader = Loader(pictures, **STREAM, retry_seconds=SECONDS)
    expected = digest(loader.epoch(3))
    _, keeper, pba = only(home)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(pba), "the server outlives its keeper")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=fork_and_read, args=(loader, queue))
    worker.start()
    assert queue.get(timeout=SECONDS) == expected
    worker.join(SECONDS)
    queue.close()
    queue.join_thread()


def test_nothing_is_joined_again_that_has_changed_or_was_closed(home: Home, copied: Path) -> None:
    with serve(copied) as server:
        client = Client(server.url, retry_seconds=SECONDS)
        assert client.datasets()
        _, keeper, pba = only(home)
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: not is_alive(pba), "the server outlives its keeper")
        replace(copied)
        with pytest.raises(pba_client.ChangedError, match=f"the files of {re.escape(str(copied))} have changed"):
            client.datasets()
    says = r"the private server has ended; make the Loader again, or call serve\(\) again"
    with pytest.raises(pba_client.UnreachableError, match=says):
        Client(server.url).datasets()
    assert not home.processes()


def test_why_it_is_not_started_again_is_said(
    home: Home, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(os.environ["PBA_BIN"], tmp_path / "pba")
    monkeypatch.setenv("PBA_BIN", str(tmp_path / "pba"))
    with serve(pictures) as server:
        client = Client(server.url, retry_seconds=0.1)
        assert client.datasets()
        _, keeper, pba = only(home)
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: not is_alive(pba), "the server outlives its keeper")
        (tmp_path / "pba").unlink()
        with pytest.raises(pba_client.UnreachableError, match="cannot start a private server with .*/pba: "):
            client.datasets()


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_server_is_not_copied(home: Home, use: Any) -> None:
    server = PrivateServer.__new__(PrivateServer)
    with pytest.raises(TypeError, match="pass its .url instead"):
        use(server)


def test_a_keeper_takes_more_users_than_the_first_may_have_files(home: Home, pictures: Path) -> None:
    code = """
import resource
from pba_client import serve
resource.setrlimit(resource.RLIMIT_NOFILE, (48, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
server = serve(sys.argv[1], cache=os.environ["XDG_CACHE_HOME"] + "/other")
say(server.log); sys.stdin.readline()
"""
    with User(pictures, code) as user, contextlib.ExitStack() as stack:
        folder = Path(user.line()).parent
        for _ in range(100):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(SECONDS)
            sock.connect(str(folder / _keeper.LIFELINE))
            assert sock.recv(100).startswith(_keeper.READY)


def test_a_keeper_outlasts_a_lack_of_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        number = errno.EMFILE

        def accept(self) -> None:
            raise OSError(self.number, os.strerror(self.number))

    monkeypatch.setattr(_keeper, "LOOK_SECONDS", 0)
    one, other = socket.socketpair()
    with one, other:
        keeper = _keeper._Keeper(one.fileno(), one, ["nothing"])
        for _ in range(2):
            keeper._accept(Full())
        assert capsys.readouterr().err.count("cannot accept another user: Too many open files") == 1
        Full.number = errno.EBADF
        with pytest.raises(OSError):
            keeper._accept(Full())
        for sock in (keeper._listener, keeper._woken, keeper._waker, keeper._selector):
            sock.close()
