"""A private server: started when it is first needed, shared by the processes of one user on this machine that want the
same, and ended with the last of them. ``_private_plan.py`` says what is the same, ``_private_join.py`` connects to the one
that is there or starts it, and ``_keeper.py`` looks after it.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from typing import Any, Dict, NoReturn, Optional, Tuple, Union

from . import _keeper
from ._errors import ChangedError
from ._private_join import OPENED, Opened, has_keeper, identity, join
from ._private_plan import Plan, plan_of
from ._private_state import state_of


class _Lifeline:
    """This process's connection to a keeper, which keeps the server for as long as it is open.

    A descriptor, as nothing but the end of the process is to close it.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.connection: Optional[Opened] = None
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
        connection = join(self.plan)
        self.close()
        self.connection, self._lock = connection, identity(self.plan, _keeper.LOCK)
        return True

    def is_of_use(self) -> bool:
        """Whether the keeper lives, and is the one in its folder, and so is the server's socket."""
        return self._is_kept() and identity(self.plan, _keeper.SOCKET) is not None

    def _is_kept(self) -> bool:
        return not self.is_cut() and self._lock == identity(self.plan, _keeper.LOCK)

    def is_cut(self) -> bool:
        """Whether the keeper has ended."""
        if self.connection is None or not self.connection.is_open():
            return True
        try:
            os.set_blocking(self.connection.number, False)
            return not os.read(self.connection.number, 1)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


# By folder.
_LIFELINES: Dict[str, _Lifeline] = {}
# In a process that was forked off, the servers of its parent, by folder; and the parent.
_INHERITED: Dict[str, Plan] = {}
_PARENT = 0
_LOCK = threading.Lock()


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

    def __init__(self, plan: Plan, lifeline: _Lifeline) -> None:
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
    plan = plan_of(path, cache, settings)
    with _LOCK:
        return PrivateServer(plan, _hold(plan))


def _hold(plan: Plan) -> _Lifeline:
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
        lifeline, inherited = _LIFELINES.get(folder), _inherited(folder)
        plan = lifeline.plan if lifeline is not None else inherited
        if plan is None or (lifeline is not None and lifeline.is_of_use()):
            return False  # in the latter case, the keeper starts the server again
        if state_of(plan.data) != plan.state:
            raise ChangedError(
                f"the private server unix:{path} has ended, and the files of {plan.data} have changed since it was "
                "started; make the Loader again, or call serve() again, for what they are now",
                source=f"unix:{path}",
            )
        if lifeline is None:
            _hold(plan)
            return True
        return lifeline.hold()


def _inherited(folder: str) -> Optional[Plan]:
    """The server of this process's parent, as long as that lives."""
    return _INHERITED.get(folder) if os.getppid() == _PARENT else None


def comes_back(path: str) -> bool:
    """Whether a private server that does not listen is started again: by its keeper, or by ``rejoin`` here."""
    folder = os.path.dirname(path)
    with _LOCK:
        if folder in _LIFELINES or _inherited(folder) is not None:
            return True
    return has_keeper(folder)


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


def _forked() -> None:
    """In a process that was forked off: the servers are its parent's."""
    global _LOCK, _PARENT
    _LOCK, _PARENT = threading.Lock(), os.getppid()
    for opened in list(OPENED):
        try:
            opened.close()
        except OSError:
            pass
    for folder, lifeline in _LIFELINES.items():
        lifeline.connection = None
        _INHERITED[folder] = lifeline.plan
    _LIFELINES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
