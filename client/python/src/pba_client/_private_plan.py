"""What a private server depends on: the dataset and the state of its files, the program, settings, and the folders in which
it is found and keeps what it packs."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from . import _keeper
from ._errors import PbaError
from ._private_state import state_of

# Rises when a keeper no longer understands processes with an older version of this package, or they it.
PROTOCOL = 1
# The longest path of a Unix socket in bytes.
SOCKET_BYTES_MAX = 107 if sys.platform == "linux" else 103
PLATFORMS = ("linux", "darwin")
BUILT_IN = "shapes"
# The name of a dataset whose file or folder has none that a server takes.
UNNAMED = "data"
# What a private server decides itself: as settings, and as variables of the environment, besides those of the client.
DECIDED = (
    "listen",
    "socket",
    "socket_mode",
    "socket_role",
    "tokens_file",
    "hosts",
    "insecure",
    "data_dir",
    "dataset",
    "config",
    "drain_delay_seconds",
    "check",
    "help",
)
OF_CLIENT = ("bin", "cache", "server", "token", "ca")
# Settings that are paths, which mean the same wherever the server runs.
PATHS = ("trainer", "libtorch")


class StartError(PbaError, RuntimeError):
    """A private server could not be started; the error says why, and names its log."""


class Plan(NamedTuple):
    """A private server, before it is started."""

    # Where those meet who want the same one.
    folder: str
    # The real path of the dataset, and its state.
    data: str
    state: Tuple[str, str]
    dataset: str
    # The folder of what is packed.
    cache: str
    command: List[str]
    environment: Dict[str, str]


def plan_of(
    path: Union[str, "os.PathLike[str]", None],
    cache: Union[str, "os.PathLike[str]", None],
    settings: Dict[str, Any],
) -> Plan:
    if sys.platform not in PLATFORMS:
        raise StartError(
            f"a private server needs Linux or macOS, and this is {sys.platform}; start one elsewhere, and pass its URL"
        )
    decided = sorted(set(settings) & set(DECIDED))
    if decided:
        raise TypeError(f"a private server decides {', '.join(decided)} itself; start another with: pba serve")
    data, dataset = data_of(path)
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
    state = state_of(data)
    # No setting changes what is packed. A server packs nothing for another one of its data directory that finds another
    # state of the files.
    chosen = cache_folder(cache)
    packed = os.path.join(chosen, f"{dataset}-{_digest(data, state[0])}")
    built = os.stat(program)
    identity = [os.path.realpath(program), built.st_mtime_ns, built.st_size]
    folder = os.path.join(root_folder(), _digest(PROTOCOL, data, state, dataset, options, packed, identity))
    longest = os.path.join(folder, _keeper.LIFELINE)
    if len(os.fsencode(longest)) > SOCKET_BYTES_MAX:
        raise StartError(
            f"{longest} is longer than the {SOCKET_BYTES_MAX} bytes of a socket's path; set XDG_RUNTIME_DIR to "
            "a shorter folder"
        )
    command = [program, "serve", "--listen=none", f"--socket={os.path.join(folder, _keeper.SOCKET)}"]
    # No load balancer stands before it.
    command += [f"--data-dir={packed}", "--drain-delay-seconds=0", *flags]
    if path is not None:
        command.append(f"--dataset={dataset}={data}")
    return Plan(folder, data, state, dataset, chosen, command, environment)


def data_of(path: Union[str, "os.PathLike[str]", None]) -> Tuple[str, str]:
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
    places += _of_wheel()
    places.append(Path(sys.executable).parent / "pba")
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    raise StartError(
        "there is no pba program to start a server with: PBA_BIN is not set, pba is not on the PATH, and there is none "
        f"at {', '.join(map(str, places))}. Install the wheel of pba-server, or build pba with `cargo build --release` in "
        "PBA Server's repository and set PBA_BIN to target/release/pba, or pass the URL of a server that runs"
    )


def _of_wheel() -> List[Path]:
    """Where the wheel of pba-server put the program, if it is installed: for this environment, or for the user."""
    try:
        files = importlib.metadata.files("pba-server") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(os.path.normpath(file.locate())) for file in files if file.name == "pba"]
    # pip notes no files that are elsewhere for what it installs into a folder of its own (--target).
    scripts = Path(sysconfig.get_path("scripts"), "pba")
    return found if scripts in found else [*found, scripts]


def cache_folder(given: Union[str, "os.PathLike[str]", None]) -> str:
    """The folder of what is packed.

    Raises:
        StartError: when it is in a home folder, and there is none.
    """
    chosen = os.fsdecode(given) if given is not None else os.environ.get("PBA_CACHE")
    if not chosen:
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "pba")
    expanded = os.path.expanduser(chosen)
    if expanded.startswith("~"):
        # Not in a folder of this name in the working directory.
        raise StartError(
            f"the folder for what is packed of datasets is {chosen!r}, and there is no such home folder: HOME is not "
            "set, and the system knows none; set PBA_CACHE to a folder, or pass cache="
        )
    return os.path.abspath(expanded)


def root_folder() -> str:
    """The folder of this user's private servers."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # It is often passed on to where it does not exist, as to the nodes of a cluster.
    base = runtime if runtime and os.path.isdir(runtime) else tempfile.gettempdir()
    return os.path.join(os.path.abspath(base), f"pba-{os.getuid()}")
