"""A private server: started when it is first needed, shared by the processes of one user on this machine that want the
same, and ended with the last of them. ``_keeper.py`` looks after it.

Who wants the same meets in a folder whose name is a digest of all that the server depends on. Whoever locks the file in
it starts a keeper, which inherits the lock; all others connect to that keeper. One that is about to leave ends the
connection without a word, and a process that hears so tries again.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Optional, Sequence, Set, Tuple, Union

from . import _keeper
from ._errors import ChangedError, PbaError

# Rises when a keeper no longer understands processes with an older version of this package, or they it.
PROTOCOL = 1
# How long the start of a server, or the end of one before it, is waited for.
JOIN_SECONDS = _keeper.START_SECONDS + 2 * _keeper.STOP_SECONDS
LOOK_SECONDS = 0.02
# The longest path of a Unix socket in bytes.
SOCKET_BYTES_MAX = 107 if sys.platform == "linux" else 103
PLATFORMS = ("linux", "darwin")
BUILT_IN = "shapes"
# The name of a dataset whose file or folder has none that a server takes.
UNNAMED = "data"
# What a private server decides itself: as settings, and as variables of the environment, besides those of the client.
DECIDED = ("listen", "socket", "socket_mode", "hosts", "insecure", "data_dir", "dataset", "config", "check", "help")
OF_CLIENT = ("bin", "cache", "server", "token", "ca")
# How the names of the files end that a server reads of a folder, or may.
SUFFIXES = (".parquet", ".arrow", ".bin", ".txt")
SUFFIXES += (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# How many files of a folder are looked at, to tell one state of it from another, and how many entries are listed. Of a
# larger folder, only the names of the other files are known, and when its folders have changed.
FILES_MAX = 100_000
ENTRIES_MAX = 4_000_000
# Settings that are paths, which mean the same wherever the server runs.
PATHS = ("trainer", "libtorch")

_LOG = logging.getLogger("pba_client")


class StartError(PbaError, RuntimeError):
    """A private server could not be started; the error says why, and names its log."""


class _Plan(NamedTuple):
    """A private server, before it is started."""

    # Where those meet who want the same one.
    folder: str
    # The real path of the dataset, and its state.
    data: str
    state: Tuple[str, str]
    dataset: str
    command: List[str]
    environment: Dict[str, str]


class _Lifeline:
    """This process's connection to a keeper, which keeps the server for as long as it is open.

    A descriptor, as nothing but the end of the process is to close it.
    """

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.descriptor: Optional[int] = None
        self.handles = 0
        # Of the lock of the keeper.
        self._lock: Optional[Tuple[int, int]] = None

    def hold(self) -> bool:
        """Connects to the keeper, and starts one if there is none; false if there is a connection that is of use."""
        if self.is_of_use():
            return False
        # If only the socket is gone, the keeper notices that when it hears of a new user.
        if not self._is_kept():
            self.close()
        descriptor = _join(self.plan)
        self.close()
        self.descriptor, self._lock = descriptor, _identity(self.plan, _keeper.LOCK)
        return True

    def is_of_use(self) -> bool:
        """Whether the keeper lives, and is the one in its folder, and so is the server's socket."""
        return self._is_kept() and _identity(self.plan, _keeper.SOCKET) is not None

    def _is_kept(self) -> bool:
        return not self.is_cut() and self._lock == _identity(self.plan, _keeper.LOCK)

    def is_cut(self) -> bool:
        """Whether the keeper has ended."""
        if self.descriptor is None:
            return True
        try:
            os.set_blocking(self.descriptor, False)
            return not os.read(self.descriptor, 1)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            _close(descriptor)


# By folder.
_LIFELINES: Dict[str, _Lifeline] = {}
# In a process that was forked off, the servers of its parent, by folder; and the parent.
_INHERITED: Dict[str, _Plan] = {}
_PARENT = 0
_LOCK = threading.Lock()
# Descriptors that a process which is forked off closes, so that it keeps nothing longer than its parent does.
_DESCRIPTORS: Set[int] = set()


class PrivateServer:
    """A server of this machine's own, as ``serve`` starts it.

    It lives as long as any process that uses it, however these end; nothing needs to be closed. As a context manager
    it is closed at the end.

    Attributes:
        url: its URL, ``unix:PATH``, for ``Client``, ``Loader`` and everything else on this machine.
        dataset: the name under which it serves the path: that of the file or folder, without what a name may not
            contain; ``shapes`` without a path.
        log: path of its log, which lasts as long as it, and longer if it failed.
    """

    def __init__(self, plan: _Plan, lifeline: _Lifeline) -> None:
        self.url = f"unix:{os.path.join(plan.folder, _keeper.SOCKET)}"
        self.dataset = plan.dataset
        self.log = os.path.join(plan.folder, _keeper.LOG)
        self._folder = plan.folder
        self._lifeline: Optional[_Lifeline] = lifeline

    def close(self) -> None:
        """Gives it up for this process, unless that uses it otherwise: without users it ends two seconds later."""
        with _LOCK:
            lifeline, self._lifeline = self._lifeline, None
            if lifeline is None:
                return
            lifeline.handles -= 1
            if lifeline.handles == 0:
                lifeline.close()
                if _LIFELINES.get(self._folder) is lifeline:
                    del _LIFELINES[self._folder]

    def __reduce__(self) -> NoReturn:
        # Also of copies: closing one would end the server under the other.
        raise TypeError("a PrivateServer belongs to its process and is not copied or pickled; pass its .url instead")

    def __enter__(self) -> PrivateServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PrivateServer of {self.dataset!r} at {self.url}>"


def serve(
    path: Union[str, "os.PathLike[str]", None] = None,
    *,
    cache: Union[str, "os.PathLike[str]", None] = None,
    **settings: Any,
) -> PrivateServer:
    """Starts a private server of a dataset, or joins the one that other processes of this user on this machine have
    started with the same arguments, program and ``PBA_`` variables, while the files of the dataset were as they are
    now. Once these have changed, it starts another, and those who use the earlier one go on with it.

    It ends two seconds after the last process that uses it, also when that was killed. A process that is forked off
    uses it as long as its parent lives, or calls ``serve`` itself. It listens on a Unix socket that only this user may
    use, and has no TCP port.

    Args:
        path: the dataset: a file or folder that ``pba serve --dataset`` takes; without it, the built-in ``shapes`` is
            served alone.
        cache: folder for what is packed of datasets, which makes the next start fast; by default that of
            ``PBA_CACHE``, else ``pba`` in ``XDG_CACHE_HOME`` or ``~/.cache``. Pixels take 3 bytes each there; images
            of different sizes as much as their files.
        settings: settings of ``pba serve`` by name, such as ``threads=4`` or ``decoded_cache_bytes=2**32``. Those in
            the environment (``PBA_THREADS``) apply as well; ``pba.toml`` is not read.

    Raises:
        FileNotFoundError: when there is nothing at the path.
        StartError: when there is no ``pba`` program, or it does not start, or on another system than Linux and macOS.
        TypeError: for a setting that a private server decides itself.
        ValueError: when the path is not UTF-8.
    """
    plan = _plan(path, cache, settings)
    with _LOCK:
        return PrivateServer(plan, _hold(plan))


def _hold(plan: _Plan) -> _Lifeline:
    """A lifeline of this process to a private server, with one handle more."""
    lifeline = _LIFELINES.get(plan.folder) or _Lifeline(plan)
    lifeline.hold()
    _LIFELINES[plan.folder] = lifeline
    lifeline.handles += 1
    return lifeline


def rejoin(path: str) -> bool:
    """Starts or joins a private server again when nothing listens on its socket, if this process uses it.

    Returns:
        Whether it is worth another attempt at once.

    Raises:
        ChangedError: when the dataset is no longer what it was.
        StartError: as by ``serve``.
    """
    folder, name = os.path.split(path)
    if name != _keeper.SOCKET:
        return False
    with _LOCK:
        lifeline = _LIFELINES.get(folder)
        inherited = _INHERITED.get(folder) if os.getppid() == _PARENT else None
        plan = lifeline.plan if lifeline is not None else inherited
        if plan is None or (lifeline is not None and lifeline.is_of_use()):
            return False  # in the latter case, the keeper starts the server again
        if _state(plan.data) != plan.state:
            raise ChangedError(
                f"the private server unix:{path} has ended, and the files of {plan.data} have changed since it was "
                "started; make the Loader again, or call serve() again, for what they are now",
                source=f"unix:{path}",
            )
        if lifeline is None:
            _hold(plan)
            return True
        return lifeline.hold()


def is_private(path: str) -> bool:
    """Whether a socket's path is that of a private server."""
    folder, name = os.path.split(path)
    return name == _keeper.SOCKET and os.path.basename(os.path.dirname(folder)) == f"pba-{os.getuid()}"


def is_path(url: object) -> bool:
    """Whether a server's URL is the path of a dataset instead.

    Raises:
        ValueError: when it is the path of a socket, or could be either.
    """
    if isinstance(url, os.PathLike):
        return True
    if not isinstance(url, str) or url.endswith(".sock"):
        return False
    if not url.startswith(("/", ".", "~")):
        if re.search("[:@]", url) is None and url and os.path.exists(url):
            raise ValueError(
                f"{url!r} may be a host or the dataset at that path; write http://{url} or {os.path.join('.', url)}"
            )
        return False
    try:
        is_socket = stat.S_ISSOCK(os.stat(os.path.expanduser(url)).st_mode)
    except OSError:
        is_socket = False
    if is_socket:
        raise ValueError(f"there is a Unix socket at {url!r}, and no dataset; a server's socket is written unix:{url}")
    return True


def url_of(urls: Any) -> Any:
    """What ``Client`` is given, with the path of a dataset replaced by the URL of its private server."""
    return serve(urls).url if is_path(urls) else urls


def located(urls: Any, dataset: Optional[str]) -> Tuple[Any, str]:
    """What ``Loader`` is given, likewise, and the dataset, which a path names as well.

    Raises:
        TypeError: when nothing names a dataset.
    """
    if is_path(urls):
        server = serve(urls)
        return server.url, server.dataset if dataset is None else dataset
    if dataset is None:
        raise TypeError(
            f"dataset= is missing: the name of a dataset of the server, whose URL is {urls!r}; or the path of a dataset "
            "in place of the URL: a single one, as text that begins with /, ./ or ~, or as an os.PathLike"
        )
    return urls, dataset


def _plan(
    path: Union[str, "os.PathLike[str]", None],
    cache: Union[str, "os.PathLike[str]", None],
    settings: Dict[str, Any],
) -> _Plan:
    if sys.platform not in PLATFORMS:
        raise StartError(
            f"a private server needs Linux or macOS, and this is {sys.platform}; start one elsewhere, and pass its URL"
        )
    decided = sorted(set(settings) & set(DECIDED))
    if decided:
        raise TypeError(f"a private server decides {', '.join(decided)} itself; start another with: pba serve")
    data, dataset = _data(path)
    program = find_program()
    variables = {f"PBA_{name.upper()}" for name in DECIDED + OF_CLIENT}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in variables and (value or not name.startswith("PBA_"))
    }
    for name in PATHS:
        variable = f"PBA_{name.upper()}"
        if variable in environment:
            environment[variable] = os.path.abspath(environment[variable])
    flags = [f"--{name.replace('_', '-')}={_text(name, value)}" for name, value in sorted(settings.items())]
    options = sorted(f"{name}={value}" for name, value in environment.items() if name.startswith("PBA_")) + flags
    state = _state(data)
    # No setting changes what is packed. A server packs nothing for another one of its data directory that finds another
    # state of the files.
    packed = os.path.join(_cache(cache), f"{dataset}-{_digest(data, state[0])}")
    built = os.stat(program)
    identity = [os.path.realpath(program), built.st_mtime_ns, built.st_size]
    folder = os.path.join(_root(), _digest(PROTOCOL, data, state, dataset, options, packed, identity))
    longest = os.path.join(folder, _keeper.LIFELINE)
    if len(os.fsencode(longest)) > SOCKET_BYTES_MAX:
        raise StartError(
            f"{longest} is longer than the {SOCKET_BYTES_MAX} bytes of a socket's path; set XDG_RUNTIME_DIR to "
            "a shorter folder"
        )
    command = [program, "serve", "--listen=none", f"--socket={os.path.join(folder, _keeper.SOCKET)}"]
    command += [f"--data-dir={packed}", *flags]
    if path is not None:
        command.append(f"--dataset={dataset}={data}")
    return _Plan(folder, data, state, dataset, command, environment)


def _data(path: Union[str, "os.PathLike[str]", None]) -> Tuple[str, str]:
    """The real path of a dataset, and its name."""
    if path is None:
        return "", BUILT_IN
    given = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
    real = os.path.realpath(given)
    for text in (given, real):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the path of a dataset has to be UTF-8, and {os.fsencode(text)!r} is not") from None
    if not os.path.exists(given):
        raise FileNotFoundError(errno.ENOENT, "there is no dataset at this path", os.fspath(path))
    named = Path(given)
    name = re.sub("[^A-Za-z0-9._-]+", "-", named.stem if named.is_file() else named.name).lstrip("._-")[:64]
    # These mean something else to the server.
    if name in ("", "none", "identity", BUILT_IN) or re.fullmatch("[0-9a-fA-F]{64}", name):
        name = UNNAMED
    return real, name


def _state(data: str) -> Tuple[str, str]:
    """What tells one state of a dataset's files from another: as the server does, which packs a changed one again; and
    with the numbers of devices and files, which differ after a restart on some file systems."""
    ours, exact = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)

    def add(path: str, found: Optional[os.stat_result] = None) -> None:
        name = os.fsencode(path) + b"\0"
        ours.update(name)
        exact.update(name)
        if found is not None:
            ours.update(b"%d %d %d\0" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns))
            exact.update(b"%d %d\0" % (found.st_dev, found.st_ino))

    try:
        if os.path.isdir(data):
            _walk(data, add)
        elif data:
            add(data, os.stat(data))
    except OSError:
        pass  # whatever it is, the server says so
    exact.update(ours.digest())
    return ours.hexdigest(), exact.hexdigest()


def _walk(root: str, add: Callable[..., None]) -> None:
    """Tells of all below a folder that a server may read."""
    waiting = [root]
    changes: List[str] = []
    # A link may lead to a folder above it.
    known: Set[Tuple[int, int]] = set()
    files = entries = 0
    while waiting and entries < ENTRIES_MAX:
        folder = waiting.pop()
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in known:
                continue
            known.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as listed:
                inside = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            continue
        changes.append(f"{found.st_mtime_ns} {found.st_ctime_ns}")
        entries += len(inside)
        for entry in inside:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    # A class may be empty.
                    add(entry.path)
                    waiting.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    files += 1
                    add(entry.path, os.stat(entry.path) if files <= FILES_MAX else None)
            except OSError:
                add(entry.path)
    if files > FILES_MAX:
        for change in changes:
            add(change)


def _text(name: str, value: Any) -> str:
    if name in PATHS:
        return os.path.abspath(os.path.expanduser(os.fsdecode(value)))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def find_program() -> str:
    """The path of the ``pba`` program.

    Raises:
        StartError: when there is none.
    """
    given = os.environ.get("PBA_BIN")
    if given:
        found = shutil.which(os.path.abspath(given) if os.sep in given else given)
        if found is None:
            raise StartError(f"PBA_BIN is {given!r}, which is no program that can be run; expected the path of pba")
        return os.path.abspath(found)
    on_path = shutil.which("pba")
    if on_path is not None:
        return os.path.abspath(on_path)
    places: List[Path] = []
    # src/pba_client in client/python of the repository.
    checkout = Path(__file__).resolve().parents[4:5]
    if checkout and (checkout[0] / "Cargo.toml").is_file():
        built = [checkout[0] / "target" / profile / "pba" for profile in ("release", "debug")]
        # The one built last is the one that is worked on.
        places += sorted(built, key=lambda place: place.stat().st_mtime if place.is_file() else 0.0, reverse=True)
    wheel = importlib.util.find_spec("pba_server")
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        places.append(Path(folder, "bin", "pba"))
    places.append(Path(sys.executable).parent / "pba")
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    raise StartError(
        "there is no pba program to start a server with: PBA_BIN is not set, pba is not on the PATH, and there is none "
        f"at {', '.join(map(str, places))}. Build it with `cargo build --release` in PBA Server's repository and set "
        "PBA_BIN to target/release/pba, or pass the URL of a server that runs"
    )


def _cache(given: Union[str, "os.PathLike[str]", None]) -> str:
    """The folder of what is packed."""
    chosen = os.fsdecode(given) if given is not None else os.environ.get("PBA_CACHE")
    if not chosen:
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "pba")
    return os.path.abspath(os.path.expanduser(chosen))


def _root() -> str:
    """The folder of this user's private servers."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # It is often passed on to where it does not exist, as to the nodes of a cluster.
    base = runtime if runtime and os.path.isdir(runtime) else tempfile.gettempdir()
    return os.path.join(os.path.abspath(base), f"pba-{os.getuid()}")


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


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _join(plan: _Plan) -> int:
    """Connects to the keeper of a private server, after starting one if there is none."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        _make_folder(os.path.dirname(plan.folder))
        _make_folder(plan.folder)
        descriptor, is_new = _connect(plan.folder), False
        if descriptor is None:
            descriptor, is_new = _start(plan), True
        if descriptor is not None:
            try:
                answer = _answer(descriptor, deadline)
            except BaseException:
                _close(descriptor)
                raise
            if answer is not None and answer.startswith(_keeper.READY):
                _LOG.info("a private server %s in %s", "was started" if is_new else "is shared", plan.folder)
                return descriptor
            _close(descriptor)
            if answer is not None and (is_new or answer.startswith(_keeper.FAILED)):
                raise _failure(plan, answer)
            # The keeper was about to leave, or there is no time left.
        if time.monotonic() > deadline:
            raise StartError(
                f"the keeper of {plan.folder} did not answer within {JOIN_SECONDS:g} seconds; its id is in "
                f"{_keeper.KEEPER_PID} there"
            )
        time.sleep(LOOK_SECONDS)


def _failure(plan: _Plan, answer: bytes) -> StartError:
    log = os.path.join(plan.folder, _keeper.LOG)
    reason, _, shown = answer[len(_keeper.FAILED) :].partition(b"\n")
    if not answer:
        reason, shown = b"its keeper ended", _keeper.tail(log)
    text = shown.decode("utf-8", "replace").strip()
    return StartError(
        f"cannot start a private server with {plan.command[0]}: {reason.decode('utf-8', 'replace')}; the end of its "
        f"log, {log}:\n{text}"
    )


def _answer(descriptor: int, deadline: float) -> Optional[bytes]:
    """What the keeper says of the start: nothing if it leaves, and none if it says nothing in time."""
    answer = b""
    # The descriptor stays open.
    with socket.socket(fileno=os.dup(descriptor)) as sock:
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


def _connect(folder: str) -> Optional[int]:
    """A connection to the keeper of a folder, if there is one."""
    descriptor = _raised(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach())
    # The descriptor stays open.
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            sock.settimeout(JOIN_SECONDS)
            sock.connect(os.path.join(folder, _keeper.LIFELINE))
        except OSError:
            _close(descriptor)
            return None
    return descriptor


def _start(plan: _Plan) -> Optional[int]:
    """Starts a keeper, and returns a connection to it; none where another process has begun to, or one is ending."""
    import fcntl

    lock = _opened(plan, _keeper.LOCK, os.O_RDWR)
    if lock is None:
        return None
    ours = theirs = log = None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        arguments = [plan.folder, str(lock), str(theirs), *plan.command]
        # It forks, and ends at once.
        status = subprocess.Popen(
            [sys.executable, "-I", "-S", _keeper.__file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=plan.environment,
            pass_fds=(lock, theirs),
            start_new_session=True,
        ).wait()
        if status != 0:
            raise _failure(plan, b"")
        descriptor, ours = ours, None
        return descriptor
    except OSError as error:
        raise StartError(f"cannot start the keeper of a private server, {sys.executable}: {_reason(error)}") from error
    finally:
        for descriptor in (lock, log, ours, theirs):
            if descriptor is not None:
                _close(descriptor)


def _opened(plan: _Plan, name: str, flags: int) -> Optional[int]:
    """Opens a file of a folder; none when a keeper has just removed that."""
    path = os.path.join(plan.folder, name)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"cannot write {path}: {_reason(error)}") from error
    return _raised(descriptor)


def _raised(descriptor: int) -> int:
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
    _DESCRIPTORS.add(raised)
    return raised


def _identity(plan: _Plan, name: str) -> Optional[Tuple[int, int]]:
    """Which file of a folder it is, if it is there."""
    try:
        found = os.lstat(os.path.join(plan.folder, name))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    _DESCRIPTORS.discard(descriptor)
    os.close(descriptor)


def _forked() -> None:
    """In a process that was forked off: the servers are its parent's."""
    global _LOCK, _PARENT
    _LOCK, _PARENT = threading.Lock(), os.getppid()
    for descriptor in list(_DESCRIPTORS):
        try:
            _close(descriptor)
        except OSError:
            pass
    for folder, lifeline in _LIFELINES.items():
        lifeline.descriptor = None
        _INHERITED[folder] = lifeline.plan
    _LIFELINES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
