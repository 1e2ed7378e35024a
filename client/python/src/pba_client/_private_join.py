"""Connects to the keeper of a private server, and starts one if there is none.

Those who want the same server meet in a folder. Whoever locks the file in it starts a keeper, which inherits the lock;
all others connect to that keeper. One that is about to leave ends the connection without a word, and a process that
hears so tries again.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple, Optional, Set, Tuple

from . import _keeper
from ._private_plan import Plan, StartError

# How long the start of a server, or the end of one before it, is waited for.
JOIN_SECONDS = _keeper.START_SECONDS + 2 * _keeper.STOP_SECONDS
LOOK_SECONDS = 0.02

_LOG = logging.getLogger("pba_client")


class Opened(NamedTuple):
    """A descriptor, and what was opened under it. A process may close all of its descriptors, as one that becomes a
    daemon does, and the number is then given to something else."""

    number: int
    # Device, file and type.
    what: Tuple[int, int, int]

    def is_open(self) -> bool:
        """Whether the number still means what was opened."""
        try:
            return _what_is(self.number) == self.what
        except OSError:
            return False

    def close(self) -> None:
        """Closes it, and nothing else that has its number now."""
        OPENED.discard(self)
        if self.is_open():
            os.close(self.number)


# What a process that is forked off closes, so that it keeps nothing longer than its parent does.
OPENED: Set[Opened] = set()


def _what_is(number: int) -> Tuple[int, int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


def join(plan: Plan) -> Opened:
    """Connects to the keeper of a private server, after starting one if there is none."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        _make_folder(os.path.dirname(plan.folder))
        _make_folder(plan.folder)
        lifeline, is_new = _connect(plan.folder), False
        if lifeline is None:
            lifeline, is_new = _start(plan), True
        if lifeline is not None:
            try:
                answer = _answer(lifeline, deadline)
            except BaseException:
                lifeline.close()
                raise
            if answer is not None and answer.startswith(_keeper.READY):
                _LOG.info("a private server %s in %s", "was started" if is_new else "is shared", plan.folder)
                return lifeline
            lifeline.close()
            if answer is not None and (is_new or answer.startswith(_keeper.FAILED)):
                raise _failure(plan, answer)
            # The keeper was about to leave, or there is no time left.
        if time.monotonic() > deadline:
            raise StartError(
                f"the keeper of {plan.folder} did not answer within {JOIN_SECONDS:g} seconds; its id is in "
                f"{_keeper.KEEPER_PID} there. End that process and remove the folder, and call serve() again"
            )
        time.sleep(LOOK_SECONDS)


def _failure(plan: Plan, answer: bytes) -> StartError:
    log = os.path.join(plan.folder, _keeper.LOG)
    reason, _, shown = answer[len(_keeper.FAILED) :].partition(b"\n")
    if not answer:
        reason, shown = b"its keeper ended", _keeper.tail(log)
    text = shown.decode("utf-8", "replace").strip()
    told = f"; the end of its log, {log}:\n{text}" if text else f"; its log, {log}, is empty"
    return StartError(
        f"cannot start a private server with {plan.command[0]}: {reason.decode('utf-8', 'replace')}{told}"
    )


def _answer(lifeline: Opened, deadline: float) -> Optional[bytes]:
    """What the keeper says of the start: nothing if it leaves, and none if it says nothing in time."""
    answer = b""
    with _socket_of(lifeline) as sock:
        while not (answer.startswith(_keeper.READY) and answer.endswith(b"\n")):
            sock.settimeout(max(LOOK_SECONDS, deadline - time.monotonic()))
            try:
                piece = sock.recv(65536)
            except socket.timeout:
                return None
            except ConnectionError:
                piece = b""
            if not piece:
                break
            answer += piece
    return answer


def has_keeper(folder: str) -> bool:
    """Whether a folder has a keeper, which takes the question for a user that leaves at once."""
    try:
        connection = _connect(folder)
    except OSError:
        return False
    if connection is None:
        return False
    connection.close()
    return True


def _connect(folder: str) -> Optional[Opened]:
    """A connection to the keeper of a folder, if there is one."""
    lifeline = _raised(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach())
    try:
        with _socket_of(lifeline) as sock:
            sock.settimeout(JOIN_SECONDS)
            sock.connect(os.path.join(folder, _keeper.LIFELINE))
    except OSError:
        lifeline.close()
        return None
    return lifeline


@contextmanager
def _socket_of(opened: Opened) -> Iterator[socket.socket]:
    """A descriptor as a socket, which does not close it. A duplicate would be unknown to a process that is forked off
    meanwhile, which would keep it."""
    sock = socket.socket(fileno=opened.number)
    try:
        yield sock
    finally:
        sock.detach()


def _start(plan: Plan) -> Optional[Opened]:
    """Starts a keeper, and returns a connection to it; none where another process has begun to, or one is ending."""
    import fcntl

    _make_cache(plan.cache)
    lock = _opened(plan, _keeper.LOCK, os.O_RDWR)
    if lock is None:
        return None
    ours = theirs = log = None
    try:
        try:
            fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            raise StartError(f"cannot lock {plan.folder}/{_keeper.LOCK}: {_reason(error)}") from error
        if not _is_at(lock, os.path.join(plan.folder, _keeper.LOCK)):
            return None  # the keeper that had it has removed it
        log = _opened(plan, _keeper.LOG, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        if log is None:
            return None
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours, theirs = (_raised(end.detach()) for end in pair)
        arguments = [plan.folder, str(lock.number), str(theirs.number), plan.data, plan.state[1], *plan.command]
        # It forks, and ends at once.
        status = subprocess.Popen(
            [sys.executable, "-I", "-S", _keeper.__file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log.number,
            stderr=log.number,
            env=plan.environment,
            pass_fds=(lock.number, theirs.number),
            start_new_session=True,
        ).wait()
        if status != 0:
            raise _failure(plan, b"")
        lifeline, ours = ours, None
        return lifeline
    except OSError as error:
        raise StartError(f"cannot start the keeper of a private server, {sys.executable}: {_reason(error)}") from error
    finally:
        for opened in (lock, log, ours, theirs):
            if opened is not None:
                opened.close()


def _opened(plan: Plan, name: str, flags: int) -> Optional[Opened]:
    """Opens a file of a folder; none when a keeper has just removed that."""
    path = os.path.join(plan.folder, name)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(
            f"cannot write {path}: {_reason(error)}; set XDG_RUNTIME_DIR to a folder that this user can write to"
        ) from error
    return _raised(descriptor)


def _raised(descriptor: int) -> Opened:
    """Takes a descriptor, and moves it if it has the number of a standard stream, as in a process that has closed
    these: others write to it, and the keeper has its own."""
    import fcntl

    try:
        raised = descriptor if descriptor > 2 else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        os.close(descriptor)
        raise
    if raised != descriptor:
        os.close(descriptor)
    opened = Opened(raised, _what_is(raised))
    OPENED.add(opened)
    return opened


def identity(plan: Plan, name: str) -> Optional[Tuple[int, int]]:
    """Which file of a folder it is, if it is there."""
    try:
        found = os.lstat(os.path.join(plan.folder, name))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_at(opened: Opened, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(opened.number), os.stat(path))
    except FileNotFoundError:
        return False


def _make_folder(folder: str) -> None:
    """Makes a folder for this user alone; one that is there must be so already."""
    try:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(folder)
    except OSError as error:
        raise StartError(
            f"cannot make the folder {folder} for a private server: {_reason(error)}; set XDG_RUNTIME_DIR to a folder "
            "that this user can write to"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StartError(
            f"{folder} is not this user's alone: it is {stat.filemode(found.st_mode)} of the user {found.st_uid}; "
            f"expected drwx------ of {os.getuid()}. Remove it, or set XDG_RUNTIME_DIR to another folder"
        )


def _make_cache(folder: str) -> None:
    """Makes the folder of what is packed, which a server would make too, without a word of how to choose another."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot make the folder {folder} for what is packed of datasets: {_reason(error)}; set PBA_CACHE to a "
            "folder that this user can write to, or pass cache="
        ) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
