"""Replicas that share their cores and their link among streams, in simulated time.

A stream wants images at the rate of its GPU and gets what its replica can give: cores are shared out fairly, and so is the
link. While it gets less it waits, for the share of its time that is missing. It stays at its replica for an epoch; the next
epoch begins at any replica, as connections through a Kubernetes service do. When its replica is lost, it goes on at another
one a moment later.

Rates only change when a stream or a replica comes or goes, so time advances from one such event to the next.
"""

import heapq
import itertools
import random
from typing import Callable, Dict, List, Optional, Tuple

from rates import Work

# Until a client notices that its replica is gone, and has its next batch from another one.
RESUME_SECONDS = 2.0
# Until a replica that is wanted is ready: scheduled, started, and found ready by its probe, with the image on the node and
# its datasets packed.
START_SECONDS = 30.0
# How long a replica that is removed goes on with its streams; drain_seconds of the server.
DRAIN_SECONDS = 30.0
SCRAPE_SECONDS = 15.0
# The window of the rates in the rule.
RATE_SECONDS = 120.0
COUNTED = ("wait", "busy", "bytes")


class Stream:
    """One epoch after another of one rank of a job."""

    def __init__(self, job: "Job", work: Work, wanted: float, images: float, epochs: int) -> None:
        self.job, self.work, self.wanted, self.images = job, work, wanted, images
        self.epochs_left, self.left = epochs, images
        self.rate, self.replica, self.since = 0.0, None, 0.0
        # Of the event that ends its epoch: a later one makes it void.
        self.turn = 0
        self.ended: Callable[[], None] = lambda: None


class Job:
    """A training run: when it began and ended, and how long its streams have waited and run."""

    def __init__(self, kind: str, begun: float, ranks: int) -> None:
        self.kind, self.begun, self.ended, self.ranks = kind, begun, None, ranks
        self.waited = self.ran = 0.0


class Replica:
    """A server, and what its counters have been at each scrape."""

    def __init__(self, cores: float, bytes_per_second: float) -> None:
        self.cores, self.bytes_per_second = cores, bytes_per_second
        self.streams: Dict[Stream, None] = {}
        self.total = dict.fromkeys(COUNTED, 0.0)
        self.slope = dict.fromkeys(COUNTED, 0.0)
        self.since = 0.0
        self.draining = self.gone = False
        # Time and counters of each scrape in the window, with the streams that ran.
        self.scrapes: List[Tuple[float, Dict[str, float], int]] = []

    def advance(self, now: float) -> None:
        for name in COUNTED:
            self.total[name] += self.slope[name] * (now - self.since)
        self.since = now


def fairly(wants: List[float], capacity: float) -> List[float]:
    """Shares a capacity out: the smaller wants are met, and the others get as much as each other."""
    given = [0.0] * len(wants)
    left = capacity
    order = sorted(range(len(wants)), key=wants.__getitem__)
    for place, k in enumerate(order):
        given[k] = min(wants[k], left / (len(wants) - place))
        left -= given[k]
    return given


def increase(samples: List[Tuple[float, float]], now: float) -> Optional[float]:
    """A counter's increase within the window as Prometheus' `rate` estimates it, extrapolated to its edges; None of fewer
    than two samples."""
    if len(samples) < 2:
        return None
    (first, low), (last, high) = samples[0], samples[-1]
    sampled = last - first
    between = sampled / (len(samples) - 1)
    start, end = first - (now - RATE_SECONDS), now - last
    if start >= between * 1.1:
        start = between / 2
    if high > low and low >= 0:
        # A counter is never below zero.
        start = min(start, sampled * low / (high - low))
    if end >= between * 1.1:
        end = between / 2
    return (high - low) * (sampled + start + end) / sampled


class Fleet:
    """All replicas and streams, and the events to come."""

    def __init__(self, replicas: int, cores: float, gigabits: float, draws: random.Random) -> None:
        self.cores, self.bytes_per_second = cores, gigabits * 1e9 / 8
        self.draws, self.now = draws, 0.0
        self.wanted = replicas
        self.ready: List[Replica] = [self._new() for _ in range(replicas)]
        self.draining: List[Replica] = []
        # Replicas whose counters are still within the window of the rates.
        self.scraped: List[Replica] = list(self.ready)
        self.starting = 0
        self.homeless: List[Stream] = []
        self.jobs: List[Job] = []
        self.lost = 0
        self._events: List[Tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def _new(self) -> Replica:
        return Replica(self.cores, self.bytes_per_second)

    # Time.

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), what))

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = end

    # Jobs.

    def begin(self, kind: str, work: Work, ranks: int, wanted: float, images: float, epochs: int) -> Job:
        """Args:
            ranks: streams at a time.
            wanted: images per second of each.
            images: of an epoch, all ranks together.
        """
        job = Job(kind, self.now, ranks)
        self.jobs.append(job)
        left = [ranks]

        def ended() -> None:
            left[0] -= 1
            if not left[0]:
                job.ended = self.now

        for _ in range(ranks):
            stream = Stream(job, work, wanted, images / ranks, epochs)
            stream.ended = ended
            self._place(stream)
        return job

    def _place(self, stream: Stream) -> None:
        stream.since = self.now
        if not self.ready:
            stream.replica = None
            self.homeless.append(stream)
            return
        replica = self.draws.choice(self.ready)
        stream.replica = replica
        replica.streams[stream] = None
        self._share_out(replica)

    def _settle(self, stream: Stream) -> None:
        """Brings up to now what a stream has read, and how long it has waited."""
        seconds = self.now - stream.since
        stream.left -= stream.rate * seconds
        stream.job.ran += seconds
        stream.job.waited += seconds * (1 - stream.rate / stream.wanted)
        stream.since = self.now

    def _share_out(self, replica: Replica) -> None:
        replica.advance(self.now)
        streams = list(replica.streams)
        for stream in streams:
            self._settle(stream)
        cores = fairly([stream.wanted / stream.work.images_per_core_second for stream in streams], replica.cores)
        rates = [share * stream.work.images_per_core_second for stream, share in zip(streams, cores)]
        sent = fairly([rate * stream.work.bytes_per_image for stream, rate in zip(streams, rates)], replica.bytes_per_second)
        replica.slope = dict.fromkeys(COUNTED, 0.0)
        for stream, bytes_ in zip(streams, sent):
            stream.rate = bytes_ / stream.work.bytes_per_image
            replica.slope["wait"] += max(0.0, 1 - stream.rate / stream.wanted)
            replica.slope["busy"] += stream.rate / stream.work.images_per_core_second
            replica.slope["bytes"] += bytes_
            stream.turn += 1
            self.at(self.now + max(0.0, stream.left) / stream.rate, lambda stream=stream, turn=stream.turn: self._end(stream, turn))

    def _leave(self, stream: Stream) -> None:
        replica = stream.replica
        self._settle(stream)
        del replica.streams[stream]
        stream.replica, stream.rate = None, 0.0
        stream.turn += 1
        self._share_out(replica)

    def _end(self, stream: Stream, turn: int) -> None:
        if stream.turn != turn:
            return
        self._leave(stream)
        stream.epochs_left -= 1
        stream.left = stream.images
        if stream.epochs_left:
            self._place(stream)
        else:
            stream.ended()

    # Replicas.

    def scale_to(self, wanted: int) -> None:
        """Starts replicas, or drains some."""
        more = wanted - self.wanted
        self.wanted = wanted
        for _ in range(more):
            self._start()
        for _ in range(-more):
            # One that is not ready yet goes first.
            if self.starting > 0 and len(self.ready) + self.starting > wanted:
                self.starting -= 1
            else:
                self._drain(self.draws.choice(self.ready))

    def _start(self) -> None:
        self.starting += 1

        def is_ready() -> None:
            if self.starting == 0:
                return
            self.starting -= 1
            replica = self._new()
            replica.since = self.now
            self.ready.append(replica)
            self.scraped.append(replica)
            waiting, self.homeless = self.homeless, []
            for stream in waiting:
                stream.job.ran += self.now - stream.since
                stream.job.waited += self.now - stream.since
                self._place(stream)

        self.at(self.now + START_SECONDS, is_ready)

    def _drain(self, replica: Replica) -> None:
        self.ready.remove(replica)
        self.draining.append(replica)

        def over() -> None:
            if replica in self.draining:
                self.draining.remove(replica)
                self._end_of(replica)

        self.at(self.now + DRAIN_SECONDS, over)

    def lose(self) -> None:
        """One replica is gone at once, and another one is started for it."""
        if self.ready:
            replica = self.draws.choice(self.ready)
            self.ready.remove(replica)
            self.lost += 1
            self._end_of(replica)
            self._start()

    def _end_of(self, replica: Replica) -> None:
        replica.advance(self.now)
        replica.slope = dict.fromkeys(COUNTED, 0.0)
        replica.gone = True
        for stream in list(replica.streams):
            self._settle(stream)
            stream.replica, stream.rate = None, 0.0
            stream.turn += 1

            def again(stream: Stream = stream, turn: int = stream.turn) -> None:
                if stream.turn == turn:
                    self._settle(stream)
                    self._place(stream)

            self.at(self.now + RESUME_SECONDS, again)
        replica.streams.clear()

    # What is measured.

    def scrape(self) -> None:
        for replica in self.scraped:
            if not replica.gone:
                replica.advance(self.now)
                replica.scrapes.append((self.now, dict(replica.total), len(replica.streams)))
            replica.scrapes = [scrape for scrape in replica.scrapes if scrape[0] > self.now - RATE_SECONDS]
        self.scraped = [replica for replica in self.scraped if not replica.gone or replica.scrapes]

    def measured(self) -> Dict[str, Optional[float]]:
        """What the queries of the rule answer."""
        found: Dict[str, Optional[float]] = {}
        for name in COUNTED:
            grown = [increase([(time, totals[name]) for time, totals, _ in replica.scrapes], self.now)
                     for replica in self.scraped]
            known = [value for value in grown if value is not None]
            found[name] = sum(known) / RATE_SECONDS if known else None
        streams = sum(sum(count for _, _, count in replica.scrapes) / len(replica.scrapes)
                      for replica in self.scraped if replica.scrapes)
        if found["wait"] is not None:
            found["wait"] /= max(1.0, streams)
        return found

    # What is true.

    def settle(self) -> None:
        """Counts what streams have read and waited up to now, which is otherwise done when something changes."""
        for replica in [*self.ready, *self.draining]:
            self._share_out(replica)

    def wanted_cores(self) -> float:
        """That would be busy if nobody waited."""
        streams = [stream for replica in [*self.ready, *self.draining] for stream in replica.streams]
        return sum(stream.wanted / stream.work.images_per_core_second for stream in streams)

    def slopes(self) -> Dict[str, float]:
        replicas = [*self.ready, *self.draining]
        found = {name: sum(replica.slope[name] for replica in replicas) for name in COUNTED}
        found["streams"] = sum(len(replica.streams) for replica in replicas)
        return found
