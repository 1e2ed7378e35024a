"""Keeps a private server: starts ``pba serve``, starts it again should it die, and ends it after its last user.

``_private.py`` runs this file as a program, on the standard library alone, so that it starts fast and stays small:

    python -I -S _keeper.py FOLDER LOCK USER DATA STATE PROGRAM [ARGUMENT ...]

``LOCK`` is the descriptor of the folder's lock, which this process holds for its life; ``USER`` that of a socket to the
process that starts it. The program is started again only while the files of ``DATA`` are in ``STATE``
(``_private_state.py``): those who use it go on with what it was, or not at all. Every further user connects to
``LIFELINE``. A connection says nothing but that its process lives: however that ends, the system closes it. Each user
is told once, either ``ready KEEPER PBA`` and a line feed, with the ids of the two processes, or ``failed`` and the
reason until the end. An end without either means that the keeper is leaving, and the user has to start another one.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional, Tuple, Union

# What is in the folder.
LOCK = "lock"
LOG = "log"
SOCKET = "pba.sock"
LIFELINE = "keeper.sock"
KEEPER_PID = "keeper.pid"
PBA_PID = "pba.pid"

READY = b"ready "
FAILED = b"failed "
# How long a server is kept without a user: one script may follow another.
IDLE_SECONDS = 2.0
# How long a server may take until it listens. It imports datasets afterwards.
START_SECONDS = 60.0
# How long it may take to end after SIGTERM, as a job that saves its models does, and one that a killed keeper left.
STOP_SECONDS = 10.0
# A server that dies so often in a row, each time within LIFE_SECONDS, is not started again. Pauses are doubled.
DEATHS_MAX = 5
LIFE_SECONDS = 60.0
PAUSE_SECONDS = 0.1
# How often is looked at what nothing tells of: while something is expected, and otherwise.
LOOK_SECONDS = 0.1
QUIET_SECONDS = 2.0
# How often is said that descriptors are lacking.
SAY_SECONDS = 60.0
# What passes when others close something.
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# What another folder would have.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Shown of the log in an error.
LOG_BYTES = 4096
# More than a keeper has.
DESCRIPTORS_MAX = 65536
_PR_SET_PDEATHSIG = 1


class _GaveUp(Exception):
    """The server cannot be kept."""


class _Keeper:
    def __init__(
        self, lock: int, user: socket.socket, command: List[str], has_changed: Callable[[], bool] = lambda: False
    ) -> None:
        self._lock = lock
        self._command = command
        self._has_changed = has_changed
        self._stopped = False
        # Each with whether it was told how the start went.
        self._users: Dict[socket.socket, bool] = {}
        # Since when there is none.
        self._alone: Optional[float] = None
        self._pba: Optional[subprocess.Popen[bytes]] = None
        self._untie: Callable[[], None] = _nothing
        self._output = b""
        self._listens = self._listened = False
        # Of the socket on which it listens.
        self._socket: Optional[Tuple[int, int]] = None
        self._said = -SAY_SECONDS
        # When the server was started last, or is to be.
        self._start = time.monotonic()
        self._deaths = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Of the socket on which this process listens.
        self._lifeline: Optional[Tuple[int, int]] = None
        self._woken, waker = socket.socketpair()
        for sock in (self._woken, waker):
            sock.setblocking(False)
        self._waker = waker
        self._take(user)

    def run(self) -> None:
        """Returns when the last user has gone; raises ``_GaveUp`` when the server cannot be kept."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._listen()
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        _wait_for_predecessor()
        while not self._stopped:
            if self._pba is None and time.monotonic() >= self._start:
                self._start_pba()
            quiet = self._listens and bool(self._users)
            events = self._selector.select(QUIET_SECONDS if quiet else LOOK_SECONDS)
            for key, _ in events:
                key.data(key.fileobj)
            self._look_after()
            self._look_at_folder()
            if self._users:
                self._alone = None
            elif self._alone is None:
                self._alone = time.monotonic()
            elif time.monotonic() - self._alone >= IDLE_SECONDS and not events:
                return

    def _listen(self) -> None:
        """Begins to listen for users, in place of where it listened before."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove(LIFELINE)
            listener.bind(LIFELINE)
            listener.listen(128)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        if self._lifeline is not None:
            self._selector.unregister(self._listener)
        self._listener.close()
        self._listener, self._lifeline = listener, _identity(LIFELINE)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _look_at_folder(self) -> None:
        """Makes again what is missing of that by which users find this keeper."""
        if _identity(LOCK) is None:
            self._lock_again()
        if _identity(LOCK) != _identity(self._lock):
            # The folder was removed; or another keeper has begun in it, and waits for the server that listens there.
            is_in_the_way = self._listens and self._socket is not None and _identity(SOCKET) == self._socket
            self._stopped = self._stopped or is_in_the_way
        elif _identity(LIFELINE) != self._lifeline:
            try:
                self._listen()
                _write(KEEPER_PID, os.getpid())
            except OSError:
                return  # there is no room; it is tried again
            _log("the socket for its users was removed; it was made again")

    def _lock_again(self) -> None:
        import fcntl

        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # the folder is gone, or another keeper begins
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)  # another keeper was faster
            return
        os.close(self._lock)
        self._lock = lock

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _wake(self, woken: socket.socket) -> None:
        woken.recv(4096)

    def _accept(self, listener: socket.socket) -> None:
        try:
            self._take(listener.accept()[0])
        except (BlockingIOError, ConnectionError):
            pass  # it has gone again
        except OSError as error:
            if error.errno not in FULL:
                raise
            # Whoever waits goes on waiting.
            if time.monotonic() - self._said >= SAY_SECONDS:
                self._said = time.monotonic()
                _log(f"cannot accept another user: {error.strerror}; it is tried again")
            time.sleep(LOOK_SECONDS)

    def _take(self, user: socket.socket) -> None:
        user.setblocking(False)
        self._users[user] = False
        self._selector.register(user, selectors.EVENT_READ, self._leave)
        if self._listens and self._pba is not None and _identity(SOCKET) != self._socket:
            _log("pba: its socket was removed; it is started again")
            self._pba.kill()
            self._pba.wait()
            self._look_after()
        self._tell()

    def _leave(self, user: socket.socket) -> None:
        """A user says nothing: what is heard is its end."""
        self._selector.unregister(user)
        del self._users[user]
        user.close()

    def _tell(self) -> None:
        if self._listens and self._pba is not None:
            for user, told in list(self._users.items()):
                if not told:
                    self._users[user] = True
                    _send(user, READY + b"%d %d\n" % (os.getpid(), self._pba.pid))

    def _start_pba(self) -> None:
        self._start = time.monotonic()
        if self._listened and self._has_changed():
            raise _GaveUp("it is not started again, as the files of its dataset have changed since it was started")
        try:
            self._pba, self._untie = _tied(self._command)
        except OSError as error:
            raise _GaveUp(f"{self._command[0]}: {error.strerror}") from None
        _write(PBA_PID, self._pba.pid)
        self._output = b""
        assert self._pba.stdout is not None
        self._selector.register(self._pba.stdout, selectors.EVENT_READ, self._hear)

    def _hear(self, stdout: object) -> None:
        """Reads what the server says of where it listens."""
        if self._pba is None or stdout is not self._pba.stdout:
            return  # it was ended meanwhile
        piece = os.read(stdout.fileno(), 4096)  # type: ignore[attr-defined]
        if not piece:
            self._selector.unregister(stdout)  # type: ignore[arg-type]
            return
        if not self._listens:
            self._output += piece
            # Its first line, as it has no other address.
            if b"\n" in self._output.partition(b"listening on unix:")[2]:
                self._listens = self._listened = True
                self._socket = _identity(SOCKET)
                self._tell()

    def _look_after(self) -> None:
        """Notices the end of the server."""
        if self._pba is None:
            return
        status, seconds = self._pba.poll(), time.monotonic() - self._start
        if status is None and not self._listens and seconds > START_SECONDS:
            self._pba.kill()
            self._pba.wait()
            raise _GaveUp(f"it does not listen after {START_SECONDS:g} seconds")
        if status is None:
            return
        self._forget_pba()
        ended = f"it ended by signal {-status}" if status < 0 else f"it ended with status {status}"
        self._deaths = 1 if seconds > LIFE_SECONDS else self._deaths + 1
        if not self._listened or self._deaths > DEATHS_MAX:
            raise _GaveUp(ended if self._deaths == 1 else f"{ended}, {self._deaths} times in a row")
        pause = PAUSE_SECONDS * 2 ** (self._deaths - 1)
        _log(f"pba: {ended} after {seconds:.1f} seconds; it is started again in {pause:g} seconds")
        self._start = time.monotonic() + pause

    def _forget_pba(self) -> None:
        assert self._pba is not None and self._pba.stdout is not None
        self._untie()
        if self._pba.stdout in self._selector.get_map():
            self._selector.unregister(self._pba.stdout)
        self._pba.stdout.close()
        self._pba, self._listens = None, False

    def end(self, failure: Optional[str]) -> None:
        """Ends the server, and removes what is in the folder; a failure leaves the log."""
        # First, so that all who want a server from now on start another keeper, which waits until this one has ended.
        self._listener.close()
        # If the folder's files were removed, those there are another keeper's.
        is_own = _identity(LOCK) == _identity(self._lock)
        if is_own:
            _remove(LIFELINE)
        for user, told in self._users.items():
            if failure is not None and not told:
                _send(user, FAILED + failure.encode() + b"\n" + tail(LOG))
            user.close()
        if self._pba is not None:
            if is_own:
                self._pba.terminate()
            else:
                # At an orderly end it removes the socket of its name.
                self._pba.kill()
            try:
                self._pba.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._pba.kill()
                self._pba.wait()
            self._forget_pba()
        if not is_own:
            return
        for name in (SOCKET, PBA_PID, KEEPER_PID) + ((LOG,) if failure is None else ()):
            _remove(name)
        # Last: whoever locks a file of this name afterwards owns the folder.
        _remove(LOCK)
        if failure is None:
            try:
                os.rmdir(os.getcwd())
            except OSError:
                pass  # another keeper begins in it


def _nothing() -> None:
    pass


def _log(text: str) -> None:
    try:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} keeper: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass  # of no use, where there is no room for it


def tail(log: str) -> bytes:
    """The end of a log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            return file.read()
    except OSError:
        return b""


def told(error: OSError, folder: str) -> str:
    """What keeps a keeper from its work, for those who wait for it."""
    hint = "; set XDG_RUNTIME_DIR to a folder with more room" if error.errno in NO_ROOM else ""
    return f"its keeper failed in {folder}: {(error.strerror or str(error)).lower()}{hint}"


def _write(name: str, number: int) -> None:
    with open(name, "w") as file:
        file.write(f"{number}\n")


def _remove(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        pass  # it is gone, or is nothing of a keeper's


def _identity(file: Union[str, int]) -> Optional[Tuple[int, int]]:
    """Which file it is, if it is there."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _send(user: socket.socket, text: bytes) -> None:
    try:
        user.send(text)
    except OSError:
        pass  # it has gone, which is heard soon


def _wait_for_predecessor() -> None:
    """Waits until the server of a keeper that was killed has ended, which it does at once."""
    end = time.monotonic() + STOP_SECONDS
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(SOCKET)
            except OSError:
                return
        time.sleep(0.02)


def _tied(command: List[str]) -> tuple[subprocess.Popen[bytes], Callable[[], None]]:
    """Starts a program that ends with this process, however this ends; and what to call after its own end."""
    keeper, prctl = os.getpid(), _prctl()

    def tie() -> None:
        # The signal comes when the thread that forked ends; this process has one only.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # type: ignore[misc]
        if os.getppid() != keeper:
            os._exit(1)

    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=tie if prctl else None
    )
    return process, _nothing if prctl else guard(process.pid)


def _prctl() -> Optional[Callable[[int, int], int]]:
    """Linux's function that asks for a signal at the end of the parent."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl  # type: ignore[no-any-return]
    except (ImportError, OSError, AttributeError):
        return None


def guard(process: int) -> Callable[[], None]:
    """Starts a process that kills another one when this one ends, where the system does not.

    Returns:
        What to call once the other one has ended by itself.
    """
    hears, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            # Among them the lock, the lifelines and the end of the pipe that says.
            os.closerange(3, hears)
            os.closerange(hears + 1, DESCRIPTORS_MAX)
            if not os.read(hears, 1):
                os.kill(process, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(hears)

    def untie() -> None:
        os.write(says, b".")
        os.close(says)
        os.waitpid(pid, 0)

    return untie


def _allow_descriptors() -> None:
    """Takes as many descriptors as it may have: there is one for each user, and the limit is that of the first user."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, OSError, ValueError):
        pass  # it goes on with what it has


def _load_state_of() -> Callable[[str], Tuple[str, str]]:
    """What tells the state of a dataset's files. Its module is loaded as a file, as this program has no package."""
    from importlib.util import module_from_spec, spec_from_file_location

    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_private_state.py")
    spec = spec_from_file_location("_private_state", place)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.state_of  # type: ignore[no-any-return]


def main(arguments: List[str]) -> None:
    folder, lock, user, data, state, *command = arguments
    # So that it is no child of the process that starts it, which would have to wait for it.
    if os.fork():
        os._exit(0)
    # Now, as the package may be replaced by another version while this process lives.
    state_of = _load_state_of()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    os.chdir(folder)
    os.set_inheritable(int(lock), False)
    _allow_descriptors()
    first = socket.socket(fileno=int(user))
    keeper = _Keeper(int(lock), first, command, lambda: state_of(data)[1] != state)
    failure: Optional[str] = "the keeper failed"
    try:
        _write(KEEPER_PID, os.getpid())
        keeper.run()
        failure = None
    except _GaveUp as error:
        failure = str(error)
        _log(f"pba: {failure}")
    except OSError as error:
        failure = told(error, folder)
        _log(failure)
    finally:
        keeper.end(failure)


if __name__ == "__main__":
    main(sys.argv[1:])
