#!/usr/bin/env python3
"""A day of 1,000 jobs that come and go, with replicas behind the autoscaling rule of deploy/kubernetes; seeded.

    python3 benches/sizing/simulate.py [--seed 1] [--jobs 1000] [--hours 24] [--rule FILE] [--out FOLDER]
    python3 benches/sizing/simulate.py --steady     # constant loads in place of a day

Rates are measured (`rates.json`), the rule is that of the ScaledObject (`rule.py`), and replicas share out what they have
as `fleet.py` says. What the jobs are is assumed: `KINDS` and `DAY` below. Writes `results/sizing/day.md` and `day.svg`, or
`steady.md`. Needs PyYAML.
"""

import argparse
import math
import pathlib
import random
import statistics
import sys
from typing import Dict, List, NamedTuple, Optional

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import plot  # noqa: E402
from fleet import DRAIN_SECONDS, RESUME_SECONDS, SCRAPE_SECONDS, START_SECONDS, Fleet  # noqa: E402
from machine import RESULTS, circumstances  # noqa: E402
from rates import works  # noqa: E402
from rates import circumstances as measured_on  # noqa: E402
from rule import FILE, PERIOD_SECONDS, Autoscaler, Rule, read  # noqa: E402

HOUR = 3600.0
# Of a replica: deploy/kubernetes/base asks for as many cores; the link is assumed.
CORES, GIGABITS = 4, 10
# How often a replica is lost, on average, each.
LOST_EVERY_HOURS = 12.0


class Kind(NamedTuple):
    """Jobs of one kind.

    Attributes:
        share: of all jobs.
        work: by its name in rates.json.
        ranks: how many GPUs, each as likely as the others.
        wanted: images per second of one GPU.
        images: of an epoch.
    """

    share: float
    work: str
    ranks: List[int]
    wanted: float
    images: int


# Assumed: what GPUs take of such networks is theirs to measure.
KINDS = {
    "small pictures, a small network": Kind(0.45, "pixels-32", [1], 8_000, 300_000),
    "224x224 from pixels": Kind(0.2, "pixels-224", [1, 2], 1_200, 100_000),
    "224x224 from JPEG, ResNet-50 and larger": Kind(0.35, "jpeg-224", [1, 2, 4], 1_000, 300_000),
}
# How long jobs take when nobody waits: the median and the spread of the logarithm, and hours at least and at most.
MEDIAN_HOURS, SPREAD, LEAST_HOURS, MOST_HOURS = 0.5, 0.8, 0.05, 6.0
# By how much of the mean more jobs come in the afternoon than in the middle of the night.
DAY = 0.8


class Minute(NamedTuple):
    """What was true in the middle of a minute."""

    hour: float
    jobs: int
    wanted_cores: float
    busy_cores: float
    replicas: int
    ready: int
    waited: float


class Day(NamedTuple):
    minutes: List[Minute]
    fleet: Fleet
    changes: List[tuple]


def arrivals(count: int, hours: float, draws: random.Random) -> List[float]:
    """Hours at which jobs begin: most of them in the afternoon."""
    times = []
    while len(times) < count:
        hour = draws.uniform(0, hours)
        if draws.uniform(0, 1 + DAY) < 1 + DAY * math.cos((hour - 15) / 24 * 2 * math.pi):
            times.append(hour)
    return sorted(times)


def simulate(rule: Rule, hours: float, seed: int, jobs: int = 0, fixed: Optional[int] = None, losses: bool = True,
             cores: float = CORES, gigabits: float = GIGABITS, steady: Optional[Dict[str, int]] = None) -> Day:
    """A simulated time.

    Args:
        jobs: that come and go.
        fixed: number of replicas, without a rule.
        steady: streams by kind that run from the beginning to the end.
    """
    # Separate, so that the jobs are the same whatever the fleet does.
    coming, placing, losing = (random.Random(f"{seed} {what}") for what in ("jobs", "places", "losses"))
    replicas = rule.least if fixed is None else fixed
    fleet = Fleet(replicas, cores, gigabits, placing)
    known = works()

    def begin(name: str, ranks: int, epochs: int) -> None:
        kind = KINDS[name]
        fleet.begin(name, known[kind.work], ranks, kind.wanted, kind.images, epochs)

    for hour in arrivals(jobs, hours, coming):
        name = coming.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
        ranks = coming.choice(KINDS[name].ranks)
        length = min(max(coming.lognormvariate(math.log(MEDIAN_HOURS), SPREAD), LEAST_HOURS), MOST_HOURS)
        epochs = max(1, round(length * HOUR * KINDS[name].wanted * ranks / KINDS[name].images))
        fleet.at(hour * HOUR, lambda name=name, ranks=ranks, epochs=epochs: begin(name, ranks, epochs))
    for name, streams in (steady or {}).items():
        for _ in range(streams):
            # Not all at once: ends of epochs would coincide for ever.
            fleet.at(coming.uniform(0, 60), lambda name=name: begin(name, 1, 10**9))

    def lose() -> None:
        fleet.lose()
        fleet.at(fleet.now + losing.expovariate(max(1, fleet.wanted) / (LOST_EVERY_HOURS * HOUR)), lose)

    if losses:
        fleet.at(losing.expovariate(replicas / (LOST_EVERY_HOURS * HOUR)), lose)
    scaler, changes, minutes = Autoscaler(rule), [], []
    now, end = 0.0, hours * HOUR
    assert PERIOD_SECONDS == SCRAPE_SECONDS
    while now < end:
        now += PERIOD_SECONDS
        fleet.run_until(now)
        fleet.scrape()
        if fixed is None:
            wanted = scaler.step(now, fleet.measured(), fleet.wanted, len(fleet.ready))
            if wanted != fleet.wanted:
                changes.append((now, wanted - fleet.wanted))
                fleet.scale_to(wanted)
        if now % 60 == 30:
            slopes = fleet.slopes()
            running = len({id(stream.job) for replica in [*fleet.ready, *fleet.draining] for stream in replica.streams})
            minutes.append(Minute(now / HOUR, running, fleet.wanted_cores(), slopes["busy"], fleet.wanted, len(fleet.ready),
                                  slopes["wait"] / max(1, slopes["streams"])))
    fleet.settle()
    return Day(minutes, fleet, changes)


def turns(changes: List[tuple]) -> int:
    """How often the number of replicas went the other way than before."""
    signs = [change > 0 for _, change in changes]
    return sum(before != after for before, after in zip(signs, signs[1:]))


def quantile(values: List[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name: str, day: Day) -> str:
    jobs = [job for job in day.fleet.jobs if job.ran]
    waits = [job.waited / job.ran for job in jobs]
    all_waited = sum(job.waited for job in jobs) / sum(job.ran for job in jobs)
    there = sum(minute.replicas for minute in day.minutes) / 60 * CORES
    busy = sum(minute.busy_cores for minute in day.minutes) / 60
    numbers = [minute.replicas for minute in day.minutes]
    return (f"| {name} | {min(numbers)} / {statistics.mean(numbers):.1f} / {max(numbers)} | {len(day.changes)} | {turns(day.changes)} | "
            f"{there:,.0f} | {busy:,.0f} ({100 * busy / there:.0f} %) | {100 * all_waited:.2f} % | {100 * quantile(waits, 0.5):.2f} % | "
            f"{100 * quantile(waits, 0.95):.1f} % | {100 * max(waits):.1f} % |")


def head() -> str:
    return ("| replicas | least / mean / most | changes | turns | core-hours there | busy | time waited, all jobs | half of the jobs: "
            "at most | 95 % | every one |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")


def report(rule: Rule, given: argparse.Namespace) -> str:
    day = simulate(rule, given.hours, given.seed, given.jobs)
    mean = math.ceil(statistics.mean(minute.replicas for minute in day.minutes))
    rows = [row("by the rule", day)]
    rows.append(row("by the first rule", simulate(nervous(rule), given.hours, given.seed, given.jobs)))
    for fixed in (mean, rule.most):
        rows.append(row(f"always {fixed}", simulate(rule, given.hours, given.seed, given.jobs, fixed=fixed)))
    kinds = "\n".join(
        f"| {name} | {100 * kind.share:.0f} % | `{kind.work}` | {', '.join(map(str, kind.ranks))} | {kind.wanted:,.0f} | {kind.images:,} |"
        for name, kind in KINDS.items())
    waits = [job.waited / job.ran for job in day.fleet.jobs if job.ran]
    (given.out / "day.svg").write_text(plot.drawing(day.minutes, CORES))
    return f"""# A day of {given.jobs:,} jobs

{head()}
{chr(10).join(rows)}

{day.fleet.lost} replicas were lost in the day that the rule had, {sum(wait < 0.01 for wait in waits):,} of {len(waits):,} jobs waited for less than 1 %
of their time. *Changes* are those that the rule made to the number of replicas, *turns* how often one went the other way than
the one before. *The first rule* is that of [steady.md](steady.md). Jobs that wait although replicas are idle had their streams at
the same replica as others: each epoch begins at one that is drawn.

![jobs, cores, replicas and time waited over the day](day.svg)

## What is simulated

| jobs | share | work | GPUs | images/s of each | images an epoch |
| --- | ---: | --- | --- | ---: | ---: |
{kinds}

Assumed: these jobs, of {MEDIAN_HOURS:g} hours in the median ({LEAST_HOURS:g} to {MOST_HOURS:g}), {DAY:g} times more of them in the afternoon and less at
night; replicas of {CORES} cores and {GIGABITS} Gbit/s, each of which is lost every {LOST_EVERY_HOURS:g} hours; {START_SECONDS:g} s until a new one is
ready, {DRAIN_SECONDS:g} s until one that is removed has gone, {RESUME_SECONDS:g} s until a stream that was cut goes on. Measured: what a core does in a
second (`benches/sizing/rates.json`: {measured_on()}). The rule is that of `deploy/kubernetes/components/autoscaling`. A stream begins each epoch at a
replica drawn at random. Ranks of a job do not wait for each other here; in training they do, so a job waits as its slowest rank.

{circumstances("sizing/simulate.py")} Seed {given.seed}; another one is another day.
"""


# Streams that run all the time, by kind.
SMALL, PIXELS, JPEG = KINDS
LOADS = [{JPEG: 4}, {JPEG: 12}, {JPEG: 30}, {JPEG: 50}, {PIXELS: 12}, {PIXELS: 40}, {SMALL: 20}, {JPEG: 10, PIXELS: 10, SMALL: 10}]
# Hours under constant load, and those that the rule has to settle in.
STEADY_HOURS, SETTLED_HOURS = 3, 1


class Settled(NamedTuple):
    """What happened under constant load once the rule had an hour: changes and turns an hour, numbers of replicas, the share
    of time that streams waited."""

    changes: float
    turns: float
    least: int
    most: int
    busy: float
    waited: float


def settled(rule: Rule, steady: Dict[str, int], seed: int) -> Settled:
    day = simulate(rule, STEADY_HOURS, seed, steady=steady, losses=False)
    changes = [change for change in day.changes if change[0] > SETTLED_HOURS * HOUR]
    minutes = [minute for minute in day.minutes if minute.hour > SETTLED_HOURS]
    numbers, hours = [minute.replicas for minute in minutes], STEADY_HOURS - SETTLED_HOURS
    return Settled(len(changes) / hours, turns(changes) / hours, min(numbers), max(numbers),
                   sum(minute.busy_cores for minute in minutes) / sum(numbers) / CORES, statistics.mean(minute.waited for minute in minutes))


def nervous(rule: Rule) -> Rule:
    """The first rule: it listened to short waits, and did not know the link."""
    waits = [trigger._replace(threshold=0.1) if trigger.metric == "wait" else trigger for trigger in rule.triggers]
    return rule._replace(triggers=waits, up=rule.up._replace(window_seconds=60)).without("link")


def steady_report(rule: Rule, seed: int) -> str:
    rows = []
    for steady in LOADS:
        streams = ", ".join(f"{count} `{KINDS[name].work}`" for name, count in steady.items())
        for name, given in (("this", rule), ("the first", nervous(rule))):
            found = settled(given, steady, seed)
            rows.append(f"| {streams} | {name} | {found.changes:.1f} | {found.turns:.1f} | {found.least} to {found.most} | "
                        f"{100 * found.busy:.0f} % | {100 * found.waited:.1f} % |")
    return f"""# Constant load

Streams that run from the beginning, without losses; {STEADY_HOURS} hours, of which the first is not counted. *This* rule is that of
`deploy/kubernetes/components/autoscaling`; *the first* one listened to waits of a tenth that lasted for a minute, and did not
ask for the link.

| streams | rule | changes an hour | turns an hour | replicas | cores busy | time waited |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

{circumstances("sizing/simulate.py")} Seed {seed}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--rule", type=pathlib.Path, default=FILE, help="a ScaledObject")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "sizing")
    parser.add_argument("--steady", action="store_true", help="constant loads")
    given = parser.parse_args()
    if given.jobs < 1 or given.hours <= 0:
        parser.error(f"{given.jobs} jobs in {given.hours:g} hours; expected at least one, and more than 0")
    given.out.mkdir(parents=True, exist_ok=True)
    text = steady_report(read(given.rule), given.seed) if given.steady else report(read(given.rule), given)
    (given.out / ("steady.md" if given.steady else "day.md")).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
