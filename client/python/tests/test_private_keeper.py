"""The keeper of a private server: how it starts it, starts it again, and is found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from conftest import Home, is_alive, program, replace, wait_for
from private_users import SECONDS, STREAM, User, digest, lines, only

import pba_client
from pba_client import Client, Loader, StartError, _keeper, _private, _private_join, _private_plan, serve


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
