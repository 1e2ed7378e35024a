"""What the scripts of this folder share: programs, servers, and what they say of the machine."""

import datetime
import http.client
import os
import pathlib
import platform
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent
RESULTS = HERE / "results"


def say(text):
    print(text, file=sys.stderr, flush=True)


def programs(names, folder=None):
    """Paths of our programs; built, unless a folder that holds them is given."""
    if folder is None:
        # One by one, because together they would ask their dependencies for more features.
        for name in names:
            package = "pba-server" if name == "pba" else "pba-benches"
            subprocess.run(["cargo", "build", "--release", "--locked", "-p", package, "--bin", name],
                           cwd=REPOSITORY, check=True)
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release"
    return [folder / name for name in names]


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def system():
    return f"{platform.system()} {platform.release()}"


def busy():
    """Ticks of all processors so far: in all, idle, and stolen by the host."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields[:8]), fields[3] + fields[4], fields[7]


def commit():
    """What is measured, if this is a checkout."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def circumstances(script):
    """The lines that every report begins with."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (f"Made by `python3 benches/{script}` at {now:%Y-%m-%d %H:%M} UTC, of commit {commit()}: {processor()}, "
            f"{os.cpu_count()} cores, {system()}, Python {platform.python_version()}; "
            f"load {os.getloadavg()[0]:.1f} at the end.")


class Server:
    """A running `pba serve` on a port of its own."""

    def __init__(self, program, folder, cores, options=()):
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--threads", str(len(cores)), *options],
            stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
            env={"RUST_LOG": "error", **os.environ})
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the server did not start: {line!r}")
        self.url = line.split()[2]
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def close(self):
        self.process.terminate()
        self.process.wait()

    def metrics(self):
        """Every metric without labels, and the sums over their labels, by name."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("GET", "/metrics")
        sums = {}
        for line in connection.getresponse().read().decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        connection.close()
        return sums

    def memory(self):
        """Resident bytes: all, and the anonymous part, which is not a mapped file's."""
        fields = dict(line.split(":") for line in self.status())
        return {name: int(fields[key].split()[0]) * 1024 for name, key in [("resident", "VmRSS"), ("anonymous", "RssAnon")]}

    def status(self):
        return pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open(self, dataset, epoch, query):
        """A connection that was asked for an epoch; nothing of the answer is read yet."""
        connection = socket.create_connection(self.address, timeout=60)
        connection.sendall(f"GET /v1/datasets/{dataset}/epochs/{epoch}/batches?{query} HTTP/1.1\r\n"
                           f"Host: {self.address[0]}\r\nConnection: close\r\n\r\n".encode())
        return connection


def megabytes(count):
    return f"{count / 1e6:,.1f}"
