#!/usr/bin/env python3
"""Measures ours and the peers on the same pictures, in turns within one run; prints one table.

    python3 benches/peers/run.py [--only NAME,...] [--rounds 7] [--json FILE]

Needs nothing but Python, and cargo where the programs are not built. Makes an environment for each
peer in `benches/.envs` from `requirements/`, once. The pictures are CIFAR-10's where PBA_TEST_DATA
names a folder that holds it as Parquet, else those of the server's built-in dataset. `--list` shows
the names. Works:

  32    32x32: the last policy of the paper's CIFAR-10 schedule, then crop, flip and cutout;
  224   the same at 224x224, with crop and cutout in proportion; both from decoded pixels, on one core
        that everybody shares, in images per second of processor time;
  stream    untouched batches to one Python process on one core, from a process on another;
  deliver   work 32 delivered to one Python process, on two cores in all.
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


NO_MASK = "exposed pixels take the mean colour at once, and later ops change them"
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
    Way(OURS, "**PBA server and Python client**", ("deliver",), "pba_stream:client", "client"),
]
WORKS = {
    "32": "(a) 32x32, policy and base",
    "224": "(b) 224x224, policy and base",
    "stream": "(d) untouched 32x32 batches over TCP to one Python process",
    "deliver": "(e) (a) delivered to one Python process, 2 cores in all",
}
# Of wall time where several processes work at once, which is what a trainer waits for.
BY_WALL = ("stream", "deliver")
OPS = ["Rotate", "TranslateX", "TranslateY", "Brightness", "Color", "Invert", "Sharpness", "Posterize",
       "ShearX", "Solarize", "ShearY", "Equalize", "AutoContrast", "Cutout", "Contrast"]
SIGNED = ("Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY")


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment(name):
    """The Python of an environment, made when its requirements are new."""
    requirements = HERE / "requirements" / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"making benches/.envs/{name}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "-r", requirements], check=True)
        stamp.write_text(digest)
    return python


def programs(folder):
    """Our two programs: built, unless a folder that holds them is given."""
    if folder is None:
        # One by one, because together they would ask their dependencies for more features.
        for package, binary in [("pba-server", "pba"), ("pba-benches", "pba-engine-peer")]:
            subprocess.run(["cargo", "build", "--release", "--locked", "-p", package, "--bin", binary],
                           cwd=REPOSITORY, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        folder = target / "release"
    return folder / "pba", folder / "pba-engine-peer"


class Worker:
    """A process that answers lines with lines of JSON."""

    def __init__(self, command, cores):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "client" / "python" / "src")})
        self.command = command
        self.versions = self.read()["versions"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.command} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.read()

    def close(self):
        self.process.stdin.close()
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
            [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--threads", str(len(cores)),
             *options],
            stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the server did not start: {line!r}")
        self.url = line.split()[2]

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


def measure(work, ways, commands, cores, rounds, seconds, check):
    """The rounds of one work: for each way, what each round measured, and what else is known."""
    workers = []
    try:
        for way in ways:
            say(f"{WORKS[work]}: starting {way.name}")
            workers.append(Worker(commands(work, way), cores))
        found = [{"way": way, "versions": worker.versions, "rounds": []} for way, worker in zip(ways, workers)]
        if check:
            side = int(work)
            for line, worker in zip(found[1:], workers[1:]):
                if not line["way"].module.startswith("torch_loader"):
                    pictures, levels = (3, range(10)) if side < 100 else (1, (2, 9))
                    line["comparison"] = compare(workers[0], worker, side, pictures, levels)
                    say(f"{line['way'].name}: {told(line['comparison'])}")
        # The first round warms everybody up.
        for number in range(rounds + 1):
            for line, worker in zip(found, workers):
                measured = worker.ask("measure", seconds if number else seconds / 2)
                if number:
                    line["rounds"].append(measured)
        return found
    finally:
        for worker in workers:
            worker.close()


def rates(line, clock):
    return [measured["images"] / measured[clock] for measured in line["rounds"]]


def ratio(ours, line, clock):
    """Of the same rounds, because a shared machine's speed wanders."""
    ratios = [mine / theirs for mine, theirs in zip(rates(ours, clock), rates(line, clock))]
    return f"{statistics.median(ratios):.3g}"


def number(value):
    """Three digits that mean something."""
    return f"{value:,.0f}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def table(results):
    lines = ["| work | way | images/s | least to most | ours / it | per CPU second | ours / it | remarks |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    for work, found in results.items():
        clock = "wall_seconds" if work in BY_WALL else "cpu_seconds"
        for line in found:
            mine = rates(line, clock)
            remarks = [told(line["comparison"])] if "comparison" in line else []
            if line["way"].remark:
                remarks.append(line["way"].remark)
            cells = [WORKS[work], line["way"].title, number(statistics.median(mine)),
                     f"{number(min(mine))} to {number(max(mine))}", ratio(found[0], line, clock)]
            # Where the rate is of processor time, these two would say it again.
            cells += ["", ""] if clock == "cpu_seconds" else [
                number(statistics.median(rates(line, "cpu_seconds"))), ratio(found[0], line, "cpu_seconds")]
            lines.append(f"| {' | '.join([*cells, '; '.join(remarks)])} |")
    return "\n".join(lines)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def report(results, circumstances):
    versions = sorted({line["versions"] for found in results.values() for line in found})
    loads = " to ".join(f"{load:.1f}" for load in sorted(circumstances["loads"]))
    cores, rounds, seconds = (circumstances[key] for key in ("cores", "rounds", "seconds"))
    return f"""# Ours beside the peers

Made by `{circumstances['command']}` on {circumstances['date']}.

- Processor: {circumstances['processor']}, {cores} cores; {platform.system()} {platform.release()}. The machine's load was {loads} while it measured; over {cores} means that others took turns with it.
- Pictures: {circumstances['pictures']}. Mean colour {circumstances['mean']}.
- {rounds} rounds, everybody in turn within each round, {seconds} s each. Figures are medians over the rounds; `ours / it` is the median of the rounds' ratios.
- (a) and (b): one core for everybody, one thread each (the DataLoader's workers are processes on the same core); images per second of processor time, all processes counted. (d) and (e): images per second of wall time as the receiving process sees it; the columns beside it are of the processor time of both sides together, which a crowded machine blurs less.
- The result is uint8, 128 images a batch, in a fresh random order: height, width, colour, or planes first with torchvision. Each image is read from decoded pixels in memory.
- Pixels are compared op by op with the engine's, at all levels and both signs, where the engine's alpha is 255, on real pictures. Random draws differ; their distributions are the same, but for albumentations' crop, which also lies at the last of the 2 x padding + 1 places.
- Versions: Python {platform.python_version()}; {'; '.join(versions)}.

{table(results)}

Not measured: DALI, tf.data and its service.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of ways, separated by commas; ours is always there")
    parser.add_argument("--works", default=",".join(WORKS), help=f"of {','.join(WORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each round")
    parser.add_argument("--json", type=pathlib.Path, help="file for what was measured, round by round")
    parser.add_argument("--out", type=pathlib.Path, help="file for the report, besides standard output")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba and pba-engine-peer; built when not given")
    parser.add_argument("--list", action="store_true", help="show the names, and end")
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
    # Servers and workers are ended on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if arguments.rounds < 1:
        parser.error("at least one round")

    ways = {work: [way for way in WAYS if work in way.works and way.name in (OURS, *only)] for work in works}
    # Ours first: the others are compared with it.
    for chosen in ways.values():
        chosen.sort(key=lambda way: way.name != OURS)
    ways = {work: chosen for work, chosen in ways.items() if len(chosen) > 1}
    pythons = {name: environment(name)
               for name in {"client", *(way.environment for chosen in ways.values() for way in chosen)} - {""}}
    server_program, engine = programs(arguments.bin_dir)

    allowed = sorted(os.sched_getaffinity(0))
    first, two = {allowed[0]}, set(allowed[:2])
    data = os.environ.get("PBA_TEST_DATA")
    loads, results, servers = [os.getloadavg()[0]], {}, {}
    with tempfile.TemporaryDirectory(prefix="pba-bench-") as folder:
        try:
            # One with the second core to itself, for `stream`; one with both.
            for name, cores in {"stream": set(allowed[-1:]), "deliver": two}.items():
                servers[name] = Server(server_program, f"{folder}/{name}", cores, data)
            dataset = servers["deliver"].dataset
            mean = subprocess.run(
                [pythons["client"], HERE / "pictures.py", servers["deliver"].url, dataset, folder], check=True,
                stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "client" / "python" / "src")}).stdout.strip()
            count = os.path.getsize(f"{folder}/32.rgb") // 3072

            def commands(work, way):
                side = 224 if work == "224" else 32
                base = [f"{folder}/{side}.rgb", side, side // 8, side // 2, mean]
                module = way.module
                if not module:
                    return [engine, *base]
                if module.startswith("pba_stream"):
                    server = servers[work]
                    module += f",{server.url},{dataset},{server.process.pid}"
                return [pythons[way.environment], HERE / "worker.py", module, *base]

            for work, chosen in ways.items():
                cores = two if work == "deliver" else first
                results[work] = measure(work, chosen, commands, cores, arguments.rounds, arguments.seconds,
                                        check=work not in BY_WALL)
                loads.append(os.getloadavg()[0])
        finally:
            for server in servers.values():
                server.close()

    # Paths of this machine are nobody's business.
    hidden = [part for part in sys.argv[1:]]
    for option in ("--json", "--out", "--bin-dir"):
        if option in hidden:
            del hidden[hidden.index(option):hidden.index(option) + 2]
    text = report(results, {
        "command": " ".join(["python3 benches/peers/run.py", *hidden]),
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "loads": [min(loads), max(loads)],
        "pictures": f"{count:,} of {'CIFAR-10' if data else 'the built-in dataset'} (training split); for (b) "
                    f"the first {min(count, 1024):,} of them at 224x224, bicubic",
        "mean": mean,
        "rounds": arguments.rounds,
        "seconds": f"{arguments.seconds:g}",
    })
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    if arguments.json:
        arguments.json.write_text(json.dumps({
            work: [{**line, "way": line["way"].name} for line in found] for work, found in results.items()
        }, indent=1))
    wrong = [line["way"].name for found in results.values() for line in found
             if line["way"].exact and line.get("comparison", {}).get("different")]
    if wrong:
        raise SystemExit(f"not our pixels, which they claim to be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
