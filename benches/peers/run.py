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
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
RESULTS = REPOSITORY / "benches" / "results"
ENVIRONMENTS = REPOSITORY / "benches" / ".envs"
OURS = "pba"


@dataclass(frozen=True)
class Way:
    """One way to do a work: a line of the table."""

    name: str
    title: str
    works: tuple
    module: str = ""
    environment: str = ""
    remark: str = ""
    # Whether it claims to make the very pixels that we make. The claim is checked.
    exact: bool = False
    # The way of ours that it is compared with.
    beside: str = OURS

    @property
    def ours(self):
        return self.title.startswith("**PBA")


NO_MASK = "exposed pixels take the mean colour at once, and later ops change them"
DALI = "exposed pixels take a gray at once, and later ops change them; draws come from NumPy"
TENSORFLOW = NO_MASK
WAYS = [
    Way(OURS, "**PBA engine**", ("32", "224")),
    Way("pillow-shipped", "Pillow as shipped, on RGBA as the paper's authors use it", ("32", "224"),
        "pillow_shipped", "pillow", exact=True),
    Way("pillow-best", "Pillow at its best", ("32", "224"), "pillow_best", "pillow", exact=True),
    Way("opencv", "OpenCV and NumPy by hand", ("32", "224"), "opencv_numpy", "opencv"),
    Way("albumentations", "albumentations", ("32", "224"), "albumentations_peer", "albumentations",
        NO_MASK + "; shears about the centre; Sharpness never blurs"),
    Way("torchvision", "torchvision v2, image by image", ("32", "224"), "torchvision_v2:image", "torch", NO_MASK),
    Way("torchvision-grouped", "torchvision v2, grouped by op", ("32", "224"), "torchvision_v2:grouped", "torch",
        NO_MASK),
    Way("dali", "DALI, its CPU operators", ("32", "224"), "dali_peer", "dali", DALI),
    Way("tf", "tf.data, in process", ("32", "224"), "tf_data", "tensorflow", TENSORFLOW),
    *(
        Way(f"loader-{peer}-{workers}", f"PyTorch DataLoader, {title}, {workers} worker{'s' * (workers > 1)}",
            ("32", "deliver"), f"torch_loader:{module},{workers}", "torch")
        for peer, title, module in [("pillow", "Pillow at its best", "pillow_best"),
                                    ("opencv", "OpenCV by hand", "opencv_numpy")]
        for workers in (1, 2)
    ),
    Way(OURS, "**PBA server and Python client**", ("stream",), "pba_stream:identity", "client"),
    Way("raw", "bare socket, the same bytes from memory", ("stream",), "pba_stream:raw", "client",
        "nothing is looked at; the bytes are an epoch, more than a cache holds"),
    Way("raw-hot", "bare socket, the same 256 KiB again and again", ("stream",), "pba_stream:raw-hot", "client",
        "nothing is looked at, and nothing leaves the cache"),
    Way("pba-unix", "**PBA server and Python client**, Unix socket", ("stream",), "pba_stream:identity-unix", "client"),
    Way("raw-unix", "bare Unix socket, the same bytes from memory", ("stream",), "pba_stream:raw-unix", "client",
        "nothing is looked at; the bytes are an epoch, more than a cache holds", beside="pba-unix"),
    Way("raw-unix-hot", "bare Unix socket, the same 256 KiB again and again", ("stream",), "pba_stream:raw-unix-hot",
        "client", "nothing is looked at, and nothing leaves the cache", beside="pba-unix"),
    Way("pba-memory", "**PBA server and Python client**, shared memory", ("stream",), "pba_stream:identity-memory",
        "client", "nobody copies; like the others, nobody looks at the pixels"),
    # Client and server are on one machine, as in every peer.
    Way(OURS, "**PBA server and Python client**, shared memory", ("deliver",), "pba_stream:client-memory", "client"),
    Way("pba-unix", "**PBA server and Python client**, Unix socket", ("deliver",), "pba_stream:client-unix", "client"),
    Way("pba-tcp", "**PBA server and Python client**, TCP", ("deliver",), "pba_stream:client", "client"),
    Way("flight", "Arrow Flight", ("stream",), "flight", "client",
        "record batches made before, of images, labels and indices as ours"),
    Way("loader-untouched", "PyTorch DataLoader, 1 worker, through shared memory", ("stream",),
        "torch_loader:untouched,1", "torch", "the worker gathers shuffled images, and does nothing else"),
    Way("tf-service", "tf.data service", ("stream",), "tf_data:stream", "tensorflow",
        "batches made before; uncompressed, one worker process"),
    Way("tf-service", "tf.data service", ("deliver",), "tf_data:deliver", "tensorflow",
        TENSORFLOW + "; uncompressed, one worker process"),
    Way(OURS, "**PBA engine**, cold", ("jpeg",), "cold",
        remark="one image after the other into one buffer"),
    Way("pba-cached", "**PBA engine**, decoded pixels cached", ("jpeg",), "cached",
        remark="one image after the other into one buffer; decoded pixels of whole images"),
    Way("pillow-best", "Pillow at its best", ("jpeg",), "from_jpeg:pillow", "pillow"),
    Way("opencv", "OpenCV and NumPy by hand", ("jpeg",), "from_jpeg:opencv", "opencv"),
    Way("albumentations", "albumentations", ("jpeg",), "from_jpeg:albumentations", "albumentations"),
    Way("torchvision", "torchvision v2, image by image", ("jpeg",), "from_jpeg:torchvision", "torch"),
    Way("dali", "DALI, its CPU operators", ("jpeg",), "dali_peer:jpeg", "dali",
        "decodes the crop only, at full resolution"),
    Way("tf", "tf.data, in process", ("jpeg",), "tf_data:jpeg", "tensorflow",
        "decodes the crop only, at full resolution"),
    Way("bare-decode", "libjpeg-turbo's bare full decode, nothing else", ("jpeg",), "from_jpeg:bare", "jpeg",
        "500x375 RGB; no crop, no resize, no policy"),
]
WORKS = {
    "32": "(a) 32x32, policy and base",
    "224": "(b) 224x224, policy and base",
    "jpeg": "(c) 500x375 JPEG to 224x224, policy and flip",
    "stream": "(d) untouched 32x32 batches to one Python process; TCP where nothing is said",
    "deliver": "(e) (a) delivered to one Python process, 2 cores in all",
}
# What the design asks for: images per second of a way of ours, or how many times a peer's rate.
BARS = {
    ("32", OURS): 1_000_000, ("32", "opencv"): 10, ("32", "pillow-best"): 25,
    ("224", OURS): 26_000, ("224", "opencv"): 2,
    ("jpeg", "opencv"): 1.5, ("jpeg", "bare-decode"): 1, ("jpeg", "pba-cached"): 26_000,
    ("stream", "raw"): 0.9, ("stream", "raw-hot"): 0.9, ("stream", "raw-unix"): 0.9,
    ("deliver", OURS): 400_000,
    # Of the best of them, and so of all.
    **{("deliver", f"loader-{peer}-{workers}"): 5 for peer in ("pillow", "opencv") for workers in (1, 2)},
    ("deliver", "tf-service"): 5,
}
# Peers that start a server or worker of their own, which has the cores that our server has.
SERVED = ("flight", "tf-service", "loader-untouched")
# Where the pixels of single ops are compared with ours.
COMPARED = ("32", "224")
# Of wall time where several processes work at once, which is what a trainer waits for.
BY_WALL = ("stream", "deliver")
OPS = ["Rotate", "TranslateX", "TranslateY", "Brightness", "Color", "Invert", "Sharpness", "Posterize",
       "ShearX", "Solarize", "ShearY", "Equalize", "AutoContrast", "Cutout", "Contrast"]
SIGNED = ("Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY")


def say(text):
    print(text, file=sys.stderr, flush=True)


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


def programs(folder):
    """Our programs: built, unless a folder that holds them is given."""
    binaries = {"pba": "pba-server", "pba-engine-peer": "pba-benches", "pba-jpeg-rate": "pba-benches"}
    if folder is None:
        # One by one, because together they would ask their dependencies for more features.
        for binary, package in binaries.items():
            subprocess.run(["cargo", "build", "--release", "--locked", "-p", package, "--bin", binary],
                           cwd=REPOSITORY, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        folder = target / "release"
    return [folder / binary for binary in binaries]


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


class Server:
    """A running `pba serve` on its own port."""

    def __init__(self, program, folder, cores, data):
        options = ["--dataset", f"cifar10={data}"] if data else []
        self.dataset = "cifar10" if data else "shapes"
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--socket", f"{folder}.sock", "--data-dir", folder,
             "--threads", str(len(cores)), *options],
            stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
            env={"RUST_LOG": "warn", **os.environ})
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the server did not start: {line!r}")
        self.url = line.split()[2]
        self.local_url = f"unix:{folder}.sock"

    def close(self):
        self.process.terminate()
        self.process.wait()


def compare(ours, theirs, side, pictures, levels):
    """What each op of a peer differs in from ours, over levels and signs, where ours is visible:
    ops that are equal, and for each other one the part of bytes that differ, and the largest
    difference. A mask that is not ours counts as a difference of 255."""
    equal, different = 0, {}
    for op in OPS:
        differing = total = largest = 0
        for level in levels:
            for sign in (1, -1) if op in SIGNED else (1,):
                for picture in range(pictures):
                    centre = ((7 * level + 3 * picture) % side, (5 * level + picture) % side)
                    request = ("apply", op, level, sign, *centre, picture)
                    mine, answer = bytes.fromhex(ours.ask(*request)["rgba"]), theirs.ask(*request)
                    other = bytes.fromhex(answer["rgba"])
                    if mine == other:
                        total += 3 * side * side
                        continue
                    for pixel in range(0, len(mine), 4):
                        if answer["has_mask"] and mine[pixel + 3] != other[pixel + 3]:
                            differing, total, largest = differing + 3, total + 3, 255
                        elif mine[pixel + 3]:
                            gaps = [abs(mine[pixel + c] - other[pixel + c]) for c in range(3)]
                            differing += sum(gap > 0 for gap in gaps)
                            total += 3
                            largest = max(largest, *gaps)
        if differing:
            different[op] = {"part": differing / total, "largest": largest}
        else:
            equal += 1
    return {"equal": equal, "different": different}


def told(comparison):
    """A comparison in words."""
    different = comparison["different"]
    if not different:
        return "all 15 ops give our pixels"
    near = [op for op, found in different.items() if found["largest"] <= 2]
    far = [f"{op} ({100 * found['part']:.2g} %)" for op, found in different.items() if found["largest"] > 2]
    parts = [f"{comparison['equal']} of 15 ops give our pixels"]
    if near:
        parts.append("within 2 of 255: " + ", ".join(near))
    if far:
        parts.append("others, with the part of bytes that differ: " + ", ".join(far))
    return "; ".join(parts)


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


def rates(line, clock):
    return [measured["images"] / measured[clock] for measured in line["rounds"]]


def ratio(ours, line, clock):
    """Of the same rounds, because a shared machine's speed wanders."""
    ratios = [mine / theirs for mine, theirs in zip(rates(ours, clock), rates(line, clock))]
    return statistics.median(ratios) if ratios else None


def number(value):
    """Three digits that mean something."""
    return f"{value:,.0f}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def times(value):
    return "" if value is None else f"{value:.3g}"


def verdict(work, line, rate, ours_to_it):
    """What the design asks for here, and whether this run reached it."""
    bar = BARS.get((work, line["way"]))
    if bar is None:
        return ""
    # Ours are asked for a rate, peers for a ratio.
    of_ours = bar >= 1000
    reached = rate if of_ours else ours_to_it
    if reached is None:
        return ""
    return f"{number(bar) if of_ours else f'{bar:g} x'}: {'met' if reached >= bar else 'missed'}"


def table(runs):
    lines = ["| run | work | way | images/s | least to most | ours / it | bar | per CPU second | ours / it | remarks |",
             "| ---: | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"]
    ways = {(work, way.name): way for way in WAYS for work in way.works}
    order = list(ways)
    for work in WORKS:
        for run_number, run in enumerate(runs, 1):
            if run["work"] != work:
                continue
            clock = "wall_seconds" if work in BY_WALL else "cpu_seconds"
            by_name = {line["way"]: line for line in run["lines"]}
            for name in sorted((name for name in by_name if (work, name) in ways),
                               key=lambda name: (name != OURS, order.index((work, name)))):
                way, line = ways[work, name], by_name[name]
                remarks = [told(line["comparison"])] if "comparison" in line else []
                if way.remark:
                    remarks.append(way.remark)
                if "failed" in line:
                    cells = [""] * 6
                    remarks = [f"did not run here: {line['failed']}"]
                else:
                    mine, ours = rates(line, clock), by_name.get(way.beside, {"rounds": []})
                    rate, ours_to_it = statistics.median(mine), ratio(ours, line, clock)
                    cells = [number(rate), f"{number(min(mine))} to {number(max(mine))}", times(ours_to_it),
                             verdict(work, line, rate, ours_to_it)]
                    # Where the rate is of processor time, these two would say it again.
                    cells += ["", ""] if clock == "cpu_seconds" else [
                        number(statistics.median(rates(line, "cpu_seconds"))),
                        times(ratio(ours, line, "cpu_seconds"))]
                lines.append(f"| {' | '.join([str(run_number), WORKS[work], way.title, *cells, '; '.join(remarks)])} |")
    return "\n".join(lines)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def busy():
    """Ticks of all processors so far: in all, idle, and stolen by the host."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields[:8]), fields[3] + fields[4], fields[7]


def commit():
    """What was measured, if this is a checkout."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def report(runs):
    described = "\n".join(
        f"| {number} | {WORKS[run['work']].split()[0]} | {' | '.join(run['circumstances'][key] for key in CIRCUMSTANCES)} |"
        for number, run in enumerate(runs, 1))
    versions = sorted({line["versions"] for run in runs for line in run["lines"] if "versions" in line})
    return f"""# Ours beside the peers

Made by `python3 benches/peers/run.py`. Each line of the table says which run it is of; a ratio or a bar is always of one run.

| run | work | {' | '.join(CIRCUMSTANCES.values())} |
| ---: | --- | {' | '.join('---' for _ in CIRCUMSTANCES)} |
{described}

- Load is the machine's load average at the run's begin and end; over the number of cores, others took turns with it. Stolen is what the host of a virtual machine took of all cores' time.
- Everybody takes turns within each round. Figures are medians over the rounds; `ours / it` is the median of the rounds' ratios, to our way of the same kind; `bar` is what section 11 of the design asks for, and whether this run reached it.
- (a), (b) and (c): one core for everybody, one thread each (the DataLoader's workers are processes on the same core); images per second of processor time, all processes counted. (d) and (e): images per second of wall time as the receiving process sees it; the columns beside it are of the processor time of both sides together, which a crowded machine blurs less.
- The result is uint8, 128 images a batch, in a fresh random order: height, width, colour, or planes first with torchvision. (a) and (b) read decoded pixels in memory. (c) reads whole JPEG files in memory: pictures of 500x375, quality 96, 4:2:0, drawn from noise of a photograph's spectrum over enlarged small pictures; the crop is drawn as torchvision draws it (8 to 100 % of the area, sides 3:4 to 4:3), resized by bilinear interpolation, then the policy, then the flip.
- Pixels of (a) and (b) are compared op by op with the engine's, at all levels and both signs, where the engine's alpha is 255, on real pictures. Random draws differ; their distributions are the same, but for albumentations' crop, which also lies at the last of the 2 x padding + 1 places.
- Versions: Python {platform.python_version()}; {'; '.join(versions)}.

{table(runs)}
"""


# What is kept of each run, and its column.
CIRCUMSTANCES = {
    "date": "begun (UTC)", "commit": "commit", "rounds": "rounds", "load": "load", "stolen": "stolen",
    "processor": "processor", "system": "system", "pictures": "pictures",
}


def keep(runs, run):
    """Adds a run, whose lines replace those of earlier runs of the same work. Ours stays in a run as
    long as a peer does, because the peer's ratio needs it."""
    measured = {line["way"] for line in run["lines"]}
    ours = {way.name for way in WAYS if way.ours}
    kept = []
    for earlier in runs:
        if earlier["work"] == run["work"]:
            lines = [line for line in earlier["lines"] if line["way"] in ours or line["way"] not in measured]
            if {line["way"] for line in lines} <= ours & measured:
                continue
            earlier = {**earlier, "lines": lines}
        kept.append(earlier)
    return [*kept, run]


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
    server_program, engine, jpeg_engine = programs(arguments.bin_dir)
    allowed = sorted(os.sched_getaffinity(0))
    first, two = {allowed[0]}, set(allowed[:2])
    data = os.environ.get("PBA_TEST_DATA")
    servers = {}
    with tempfile.TemporaryDirectory(prefix="pba-bench-") as folder:
        try:
            # One with the second core to itself, for `stream`; one with both, which gives the pictures too.
            cores_of = {"deliver": two} | ({"stream": set(allowed[-1:])} if "stream" in chosen else {})
            for name, cores in cores_of.items():
                servers[name] = Server(server_program, f"{folder}/{name}", cores, data)
            dataset = servers["deliver"].dataset
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
                    module += f",{server.url},{server.local_url},{dataset},{server.process.pid}"
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
                    "system": f"{platform.system()} {platform.release()}",
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
