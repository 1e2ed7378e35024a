"""What is kept of each run, and the table that is made of it."""

import platform
import statistics

from compare import told
from ways import BARS, BY_WALL, OURS, WAYS, WORKS

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
