"""The images, built here and run as a cluster would run them: without root, on a root that is read-only.

The base is a Debian without a shell, made by mmdebstrap, as no registry need be reached; the binaries are those of the
repository's build. All this needs root, for mounts; elsewhere these tests are left out. PBA_TEST_TRAINER_IMAGE=1 also
builds and runs the one with the trainer, which copies libtorch a few times: 3 GB for a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from conftest import AT_ONCE, DEPLOY, Server, binary, environment, get, run, tool, version

PROGRAM = "/usr/local/bin/pba"
# What a container runtime does: mounts in a namespace of their own, then another user in another root. Capabilities go
# with root; what the root holds cannot be changed any more.
ENTER = r"""
set -e
root="$1" data="$2" mode="$3"; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$data" "$root/var/lib/pba"
[ "$mode" = rw ] || mount -o remount,bind,ro "$root/var/lib/pba"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=64m tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec=65532:65532 --groups= "$root" "$@"
"""


class Images:
    """buildah with a storage of its own, which ends with the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.buildah = tool("buildah", "Debian's package buildah has it")
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
            pytest.skip("mounts need root, with the right to make namespaces")
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/storage"\n'
        )
        # Without it buildah takes no image at all; nothing is fetched from anywhere.
        policy = folder / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.environment = {
            **environment(),
            "HOME": str(folder),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDER_PROGRAM": self.buildah,
        }

    def do(self, *command: str) -> str:
        done = subprocess.run(
            [self.buildah, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )
        assert done.returncode == 0, f"buildah {' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def base(self, name: str, packages: str) -> str:
        """A Debian of these packages alone, without a shell."""
        archive = self.folder / f"{name}.tar"
        command = [
            tool("mmdebstrap", "Debian's package mmdebstrap has it"),
            "--variant=extract",
            f"--include={packages}",
        ]
        options = {"capture_output": True, "text": True, "timeout": 300, "env": self.environment}
        done = subprocess.run([*command, "bookworm", str(archive)], **options)
        if done.returncode != 0:
            pytest.skip(f"mmdebstrap reaches no mirror of Debian: {done.stderr.strip().splitlines()[-1]}")
        container = self.do("from", "scratch")
        self.do("add", "--quiet", container, str(archive), "/")
        self.do("commit", "--quiet", "--rm", container, f"localhost/{name}:12")
        archive.unlink()
        return f"localhost/{name}:12"

    def build(self, image: str, base: str) -> str:
        """Builds an image of the repository's binaries, and returns its name."""
        script = str(DEPLOY / "images" / "build.sh")
        command = [script, image, "--prebuilt", str(binary().parent), "--", "--build-arg", f"BASE={base}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()[-1][len("built ") :]

    def config(self, image: str) -> Dict[str, object]:
        return json.loads(self.do("inspect", "--type", "image", image))["Docker"]["config"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    images = Images(tmp_path_factory.mktemp("images"))
    yield images
    images.do("rm", "--all")
    images.do("rmi", "--all", "--force")


class Root:
    """The root of an image, and how to run what is in it."""

    def __init__(self, images: Images, image: str) -> None:
        self.image = image
        self.config = images.config(image)
        self.path = images.do("mount", images.do("from", image))
        self.said = dict(entry.split("=", 1) for entry in self.config["Env"])  # type: ignore[union-attr]
        self.environment = {**self.said, "PATH": os.environ["PATH"], "PBA_INSECURE": "true", **AT_ONCE}

    def command(self, data: Path, mode: str, *command: str) -> List[str]:
        return ["unshare", "--mount", "sh", "-c", ENTER, "sh", self.path, str(data), mode, *command]

    def serve(self, data: Path, mode: str, log: Path, **settings: str) -> Server:
        listens = {"PBA_LISTEN": "127.0.0.1:0", "PBA_METRICS_LISTEN": "127.0.0.1:0"}
        known = {**self.environment, **listens, **settings}
        return Server(self.command(data, mode, PROGRAM, "serve"), log, env=known)


def volume(folder: Path) -> Path:
    """As a volume is, it belongs to the server's user."""
    folder.mkdir(mode=0o755)
    os.chown(folder, 65532, 65532)
    return folder


@pytest.fixture(scope="module")
def pba(images: Images) -> Root:
    return Root(images, images.build("pba", images.base("cc", "base-files,libc6,libgcc-s1")))


def epoch_of(server: Server) -> Dict[str, int]:
    return json.loads(run([str(binary()), "stream", server.url, "--dataset", "shapes", "--json"]).stdout)


def test_it_says_what_it_is(images: Images, pba: Root) -> None:
    config = pba.config
    assert pba.image == f"localhost/pba:{version()}"
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("65532:65532", [PROGRAM], ["serve"])
    assert list(config["Volumes"]) == ["/var/lib/pba"] and set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}  # type: ignore[call-overload]
    assert config["Healthcheck"]["Test"] == ["CMD", PROGRAM, "health", "http://127.0.0.1:9090"]  # type: ignore[index]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == version()  # type: ignore[index]
    assert all(
        labels[f"org.opencontainers.image.{name}"] for name in ("revision", "created", "licenses", "base.name")
    )  # type: ignore[index]
    files = [path for path in Path(pba.path).rglob("*") if path.is_file() and not path.is_symlink()]
    rest = sum(path.stat().st_size for path in files) - Path(pba.path + PROGRAM).stat().st_size
    # Beside the binary there is little more than glibc.
    assert rest < 30e6, rest
    assert not list(Path(pba.path, "bin").glob("sh")) and not list(Path(pba.path, "usr/bin").glob("*sh"))


def test_it_serves_an_epoch_without_root_on_a_root_that_is_read_only(pba: Root, tmp_path: Path) -> None:
    server = pba.serve(volume(tmp_path / "data"), "rw", tmp_path / "log")
    try:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["65532"] * 4 and fields["Gid"].split() == ["65532"] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        mounts = Path(f"/proc/{server.process.pid}/mountinfo").read_text().splitlines()
        # The last one on a path is the one that counts.
        options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
        assert "ro" in options["/"] and "rw" in options["/var/lib/pba"]
        assert epoch_of(server)["images"] > 0
    finally:
        assert server.stop() == 0, server.log()


def test_the_health_check_needs_no_shell(pba: Root, tmp_path: Path) -> None:
    assert "PBA_METRICS_LISTEN" in pba.environment
    data = volume(tmp_path / "data")
    server = pba.serve(data, "rw", tmp_path / "log")
    try:
        assert server.process.stdout is not None
        line = server.process.stdout.readline().decode().strip()
        assert line.startswith("metrics on http://"), line
        url = line[len("metrics on ") : -len("/metrics")]
        check = pba.command(data, "ro", *pba.config["Healthcheck"]["Test"][1:-1], url)  # type: ignore[index]
        assert subprocess.run(check, env=pba.environment, timeout=60).returncode == 0
    finally:
        assert server.stop() == 0, server.log()
    assert subprocess.run(check, env=pba.environment, timeout=60, capture_output=True).returncode == 1


def test_replicas_read_what_the_writer_writes(pba: Root, tmp_path: Path) -> None:
    """As in Kubernetes: one volume, which the replica has read-only."""
    data = volume(tmp_path / "data")
    writer = pba.serve(data, "rw", tmp_path / "writer.log")
    replica = None
    try:
        replica = pba.serve(data, "ro", tmp_path / "replica.log")
        assert [_is_writer(server) for server in (writer, replica)] == [True, False]
        assert epoch_of(replica)["images"] == epoch_of(writer)["images"]
        published = json.loads(get(writer.url + "/v1/schedules"))["schedules"][0]["name"]
        schedule = get(f"{writer.url}/v1/schedules/{published}")
        assert _put(writer, "/v1/schedules/mine", schedule) in (200, 201)
        assert json.loads(get(replica.url + "/v1/schedules/mine"))["epochs"] > 0
        assert _put(replica, "/v1/schedules/other", schedule) == 503
    finally:
        for server in filter(None, (replica, writer)):
            assert server.stop() == 0, server.log()


def _is_writer(server: Server) -> bool:
    return "\npba_writer 1\n" in get(server.url + "/metrics")


def _put(server: Server, path: str, body: str) -> int:
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, data=body.encode(), method="PUT", headers=head)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(
    os.environ.get("PBA_TEST_TRAINER_IMAGE") != "1", reason="PBA_TEST_TRAINER_IMAGE=1 tests it: 3 GB for a minute"
)
def test_the_trainer_trains(images: Images, tmp_path: Path) -> None:
    base = images.base("cxx", "base-files,libc6,libgcc-s1,libstdc++6")
    trainer = Root(images, images.build("trainer", base))
    server = trainer.serve(volume(tmp_path / "data"), "rw", tmp_path / "log")
    try:
        assert epoch_of(server)["images"] > 0
        options = [
            "--model",
            "tiny",
            "--epochs",
            "1",
            "--dataset",
            "shapes",
            "--server",
            server.url,
            "--watch",
            "--json",
        ]
        said = run([str(binary()), "evaluate", *options]).stdout
        assert '"done"' in said, said
    finally:
        assert server.stop() == 0, server.log()
