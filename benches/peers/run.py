#!/usr/bin/env python3
"""Measures ours and the peers on the same pictures, in turns within one run; prints one table.

    python3 benches/peers/run.py [--works WORK,...] [--only NAME,...] [--rounds 7] [--missing]

Needs nothing but Python, and cargo where the programs are not built. Makes an environment for each
peer in `benches/.envs` from `requirements/`, once. The pictures are CIFAR-10's where PBA_TEST_DATA
names a folder that holds it as Parquet, else those of the server's built-in dataset. `--list` shows
the names. Works:

  32    32x32: the last policy of the paper's CIFAR-10 schedule, then crop, flip and cutout;
  224   the same at 224x224, with crop and cutout in proportion; both from decoded pixels, on one core
        that everybody shares, in images per second of processor time;
  jpeg  500x375 JPEG to a random resized crop of 224x224, the same policy, flip; one core as well;
  stream    untouched batches to one Python process on one core, from a process on another;
  deliver   work 32 delivered to one Python process, on two cores in all.

What is measured is kept in `results/peers.json`, work by work, and the table in `results/peers.md`
is made of all that is kept: each call replaces the lines that it measured again, and every line
names its call. `--missing` leaves out what is kept, which goes on after an interruption; `--fresh`
forgets it all; `--report` only makes the table again.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from compare import compare, told  # noqa: E402
from machine import REPOSITORY, RESULTS, Server, busy, commit, processor, programs, say, system  # noqa: E402
from report import keep, report  # noqa: E402
from ways import COMPARED, OURS, SERVED, WAYS, WORKS  # noqa: E402

ENVIRONMENTS = HERE.parent / ".envs"


class DidNotRun(Exception):
    """A peer that cannot be installed, or that ended. The others go on."""


def environment(name):
    """The Python of an environment, made when its requirements are new."""
    requirements = HERE / "requirements" / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"making benches/.envs/{name}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        installed = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                                    "-r", requirements])
        if installed.returncode:
            raise DidNotRun(f"{requirements.name} could not be installed")
        stamp.write_text(digest)
    return python


class Worker:
    """A process that answers lines with lines of JSON."""

    def __init__(self, command, cores):
        try:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "client" / "python" / "src")})
        except OSError as error:
            raise DidNotRun(f"{pathlib.Path(command[0]).name} cannot be started: {error.strerror}") from None
        try:
            self.versions = self.read()["versions"]
        except DidNotRun:
            self.close()
            raise

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise DidNotRun(f"ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, *words):
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise DidNotRun(f"ended with {self.process.wait()}") from None
        return self.read()

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(work, ways, commands, cores, rounds, seconds):
    """The rounds of one work: for each way, what each round measured, and what else is known."""
    found, workers = [], {}

    def attempt(line, action):
        """Does it, unless this way failed before; what fails is left out from then on."""
        try:
            return None if "failed" in line else action()
        except DidNotRun as failure:
            say(f"{WORKS[work]}: {line['way']}: {failure}")
            line["failed"], line["rounds"] = str(failure), []

    try:
        for way in ways:
            say(f"{WORKS[work]}: starting {way.name}")
            line = {"way": way.name, "rounds": []}
            found.append(line)
            workers[way.name] = attempt(line, lambda way=way: Worker(commands(work, way), cores))
            if workers[way.name]:
                line["versions"] = workers[way.name].versions
        if work in COMPARED and workers.get(OURS):
            side = int(work)
            pictures, levels = (3, range(10)) if side < 100 else (1, (2, 9))
            for line in found:
                if line["way"] != OURS and not line["way"].startswith("loader"):
                    comparison = attempt(line, lambda line=line: compare(
                        workers[OURS], workers[line["way"]], side, pictures, levels))
                    if comparison:
                        line["comparison"] = comparison
                        say(f"{line['way']}: {told(comparison)}")
        # The first round warms everybody up.
        for number in range(rounds + 1):
            for line in found:
                measured = attempt(line, lambda line=line: workers[line["way"]].ask(
                    "measure", seconds if number else seconds / 2))
                if measured and number:
                    line["rounds"].append(measured)
        return found
    finally:
        for worker in workers.values():
            if worker:
                worker.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS), help=f"of {','.join(WORKS)}; all by default")
    parser.add_argument("--only", help="names of ways, separated by commas; ours are always there")
    parser.add_argument("--missing", action="store_true", help="leave out what is kept already")
    parser.add_argument("--fresh", action="store_true", help="forget what is kept")
    parser.add_argument("--report", action="store_true", help="make the table of what is kept, and end")
    parser.add_argument("--list", action="store_true", help="show the names, and end")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each round")
    parser.add_argument("--json", type=pathlib.Path, default=RESULTS / "peers.json", help="what is kept")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "peers.md", help="the report")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba and pba-engine-peer; built when not given")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(way.name for way in WAYS))
    if arguments.list:
        print("\n".join(names))
        return
    only = arguments.only.split(",") if arguments.only else names
    works = arguments.works.split(",")
    for given, known in ((only, names), (works, list(WORKS))):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if arguments.rounds < 1:
        parser.error("at least one round")
    # Servers and workers are ended on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    runs = json.loads(arguments.json.read_text())["runs"] if arguments.json.exists() and not arguments.fresh else []
    if arguments.report:
        arguments.out.write_text(report(runs))
        return
    chosen = {}
    for work in works:
        kept = {line["way"] for run in runs if run["work"] == work for line in run["lines"]
                if arguments.missing and line["rounds"]}
        ways = [way for way in WAYS if work in way.works and way.name in only and way.name not in kept]
        if ways:
            # Ours first: the others are compared with it.
            ours = [way for way in WAYS if work in way.works and way.ours]
            chosen[work] = ours + [way for way in ways if not way.ours]
    if chosen:
        measure_all(arguments, chosen, runs)
    runs = json.loads(arguments.json.read_text())["runs"] if chosen else runs
    print(report(runs))
    wrong = [line["way"] for run in runs for line in run["lines"] for way in WAYS
             if way.exact and way.name == line["way"] and line.get("comparison", {}).get("different")]
    if wrong:
        raise SystemExit(f"not our pixels, which they claim to be: {', '.join(wrong)}")


def measure_all(arguments, chosen, runs):
    """Measures these ways of these works, and keeps each work as soon as it is done."""
    pythons = {}
    for name in {"client", *(way.environment for ways in chosen.values() for way in ways)} - {""}:
        try:
            pythons[name] = environment(name)
        except DidNotRun as failure:
            if name == "client":
                raise SystemExit(str(failure)) from None
            pythons[name] = failure
    server_program, engine, jpeg_engine = programs(["pba", "pba-engine-peer", "pba-jpeg-rate"], arguments.bin_dir)
    allowed = sorted(os.sched_getaffinity(0))
    first, two = {allowed[0]}, set(allowed[:2])
    data = os.environ.get("PBA_TEST_DATA")
    servers = {}
    with tempfile.TemporaryDirectory(prefix="pba-bench-") as folder:
        try:
            # One with the second core to itself, for `stream`; one with both, which gives the pictures too.
            cores_of = {"deliver": two} | ({"stream": set(allowed[-1:])} if "stream" in chosen else {})
            dataset, options = ("cifar10", ["--dataset", f"cifar10={data}"]) if data else ("shapes", [])
            for name, cores in cores_of.items():
                socket = ["--socket", f"{folder}/{name}.sock"]
                servers[name] = Server(server_program, f"{folder}/{name}", cores, [*options, *socket])
            mean = subprocess.run(
                [pythons["client"], HERE / "pictures.py", servers["deliver"].url, dataset, folder,
                 *(["jpeg"] if "jpeg" in chosen else [])], check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "client" / "python" / "src")}).stdout.strip()
            count = os.path.getsize(f"{folder}/32.rgb") // 3072

            def commands(work, way):
                side = 32 if work in ("32", "stream", "deliver") else 224
                file = f"{folder}/jpeg" if work == "jpeg" else f"{folder}/{side}.rgb"
                base = [file, side, side // 8, side // 2, mean]
                module = way.module
                if not way.environment:
                    return [engine, *base] if not module else [
                        jpeg_engine, "--peer", "--images", file, "--work", module]
                if isinstance(pythons[way.environment], DidNotRun):
                    raise pythons[way.environment]
                if module.startswith("pba_stream"):
                    server = servers[work]
                    module += f",{server.url},unix:{folder}/{work}.sock,{dataset},{server.process.pid}"
                # A peer with a server of its own puts it on these.
                elif way.name in SERVED:
                    own = {allowed[-1]} if work == "stream" else two
                    module += f"{',' if ':' in module else ':'}{'+'.join(map(str, sorted(own)))}"
                return [pythons[way.environment], HERE / "worker.py", module, *base]

            for work, ways in chosen.items():
                began, load = datetime.datetime.now(datetime.timezone.utc), os.getloadavg()[0]
                ticks = busy()
                lines = measure(work, ways, commands, two if work == "deliver" else first, arguments.rounds,
                                arguments.seconds)
                total, _, stolen = (after - before for after, before in zip(busy(), ticks))
                runs = keep(runs, {"work": work, "lines": lines, "circumstances": {
                    "date": f"{began:%Y-%m-%d %H:%M}",
                    "commit": commit(),
                    "rounds": f"{arguments.rounds} of {arguments.seconds:g} s",
                    "load": f"{load:.1f} to {os.getloadavg()[0]:.1f}",
                    "stolen": f"{100 * stolen / total:.1f} %",
                    "processor": f"{processor()}, {os.cpu_count()} cores",
                    "system": system(),
                    "pictures": photographs_told(folder) if work == "jpeg"
                    else pictures_told(work, count, data, mean),
                }})
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps({"runs": runs}, indent=1))
                arguments.out.write_text(report(runs))
        finally:
            for server in servers.values():
                server.close()


def photographs_told(folder):
    sizes = sorted(path.stat().st_size for path in pathlib.Path(folder, "jpeg").iterdir())
    return f"{len(sizes)} drawn JPEGs of {sizes[0] // 1000} to {sizes[-1] // 1000} kB"


def pictures_told(work, count, data, mean):
    source = f"{count:,} of {'CIFAR-10' if data else 'the built-in dataset'} (training split)"
    return (f"the first {min(count, 1024):,} of {source} at 224x224, bicubic" if work == "224" else source) \
        + f", mean {mean}"


if __name__ == "__main__":
    main()
