"""The rule by which Kubernetes adds and removes replicas: that of the ScaledObject, as the autoscaler applies it.

KEDA hands each trigger to a HorizontalPodAutoscaler as an external metric. Every 15 seconds each metric proposes a number
of replicas, of which the largest counts; `behavior` then holds it back. What is below follows the autoscaler's documented
algorithm: the tolerance of a tenth, how a `Value` and an `AverageValue` propose, the windows in which the least (up) or the
most (down) that was proposed counts, and the policies, which bound the change within a period.
"""

import math
import pathlib
from typing import Dict, List, NamedTuple, Optional, Tuple

import yaml

FILE = pathlib.Path(__file__).resolve().parents[2] / "deploy/kubernetes/components/autoscaling/scaledobject.yaml"
# Of the autoscaler, unless a cluster is told otherwise.
PERIOD_SECONDS = 15
TOLERANCE = 0.1
# By which metric a trigger is known, and what the simulation calls it.
METRICS = {"pba_client_wait_seconds_total": "wait", "pba_worker_busy_seconds_total": "busy", "pba_stream_bytes_total": "bytes"}


class Trigger(NamedTuple):
    """One question, and what its answer should be: of all replicas together, or of each (`average`)."""

    name: str
    metric: str
    threshold: float
    average: bool


class Policy(NamedTuple):
    """How much may change within a period: a share in percent, or a number of replicas."""

    percent: bool
    value: float
    seconds: float


class Direction(NamedTuple):
    """What holds changes of one direction back."""

    window_seconds: float
    policies: List[Policy]
    most: bool


class Rule(NamedTuple):
    least: int
    most: int
    up: Direction
    down: Direction
    triggers: List[Trigger]

    def without(self, *names: str) -> "Rule":
        """The same without some triggers."""
        return self._replace(triggers=[trigger for trigger in self.triggers if trigger.name not in names])

    def beside(self, *triggers: Trigger) -> "Rule":
        """The same with further triggers."""
        return self._replace(triggers=[*self.triggers, *triggers])


def read(file: pathlib.Path = FILE) -> Rule:
    """The rule of a ScaledObject.

    Raises:
        ValueError: when it has what is not simulated.
    """
    spec = yaml.safe_load(file.read_text())["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Rule(spec["minReplicaCount"], spec["maxReplicaCount"], _direction(behavior["scaleUp"], file),
                _direction(behavior["scaleDown"], file), [_trigger(trigger, file) for trigger in spec["triggers"]])


def _direction(given: dict, file: pathlib.Path) -> Direction:
    policies = []
    for policy in given["policies"]:
        if policy["type"] not in ("Percent", "Pods"):
            raise ValueError(f"{file}: a policy of type {policy['type']!r}; expected Percent or Pods")
        policies.append(Policy(policy["type"] == "Percent", policy["value"], policy["periodSeconds"]))
    select = given.get("selectPolicy", "Max")
    if select not in ("Max", "Min"):
        raise ValueError(f"{file}: selectPolicy is {select!r}; expected Max or Min")
    return Direction(given.get("stabilizationWindowSeconds", 0), policies, select == "Max")


def _trigger(given: dict, file: pathlib.Path) -> Trigger:
    known = [name for metric, name in METRICS.items() if metric in given["metadata"]["query"]]
    if given["type"] != "prometheus" or len(known) != 1:
        raise ValueError(f"{file}: the trigger {given.get('name')!r} asks for none, or several, of {', '.join(METRICS)}")
    if given["metricType"] not in ("Value", "AverageValue"):
        raise ValueError(f"{file}: metricType is {given['metricType']!r}; expected Value or AverageValue")
    return Trigger(given["name"], known[0], float(given["metadata"]["threshold"]), given["metricType"] == "AverageValue")


class Autoscaler:
    """Decides, from what was measured, how many replicas there should be."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._proposed: List[Tuple[float, int]] = []
        self._added: List[Tuple[float, int]] = []
        self._removed: List[Tuple[float, int]] = []

    def step(self, now: float, measured: Dict[str, Optional[float]], current: int, ready: int) -> int:
        """How many replicas there should be now.

        Args:
            now: in seconds; steps are `PERIOD_SECONDS` apart.
            measured: by metric; None where there is no answer.
            current: replicas that there should be until now.
            ready: those that can be used.
        """
        proposals = [self._propose(trigger, measured[trigger.metric], current, ready) for trigger in self.rule.triggers
                     if measured[trigger.metric] is not None]
        unanswered = len(proposals) < len(self.rule.triggers)
        if not proposals or (unanswered and max(proposals) < current):
            return current
        desired = self._stabilize(now, max(proposals), current)
        desired = self._limit(now, desired, current)
        if desired > current:
            self._added.append((now, desired - current))
        elif desired < current:
            self._removed.append((now, current - desired))
        return desired

    @staticmethod
    def _propose(trigger: Trigger, value: float, current: int, ready: int) -> int:
        ratio = value / (trigger.threshold * current) if trigger.average else value / trigger.threshold
        if abs(1 - ratio) <= TOLERANCE:
            return current
        return math.ceil(value / trigger.threshold) if trigger.average else math.ceil(ready * ratio)

    def _stabilize(self, now: float, proposed: int, current: int) -> int:
        up, down = self.rule.up.window_seconds, self.rule.down.window_seconds
        self._proposed = [(time, number) for time, number in self._proposed if time > now - max(up, down)]
        self._proposed.append((now, proposed))
        least = min(number for time, number in self._proposed if time > now - up or time == now)
        most = max(number for time, number in self._proposed if time > now - down or time == now)
        return min(max(current, least), most)

    def _limit(self, now: float, desired: int, current: int) -> int:
        def within(changes: List[Tuple[float, int]], seconds: float) -> int:
            return sum(number for time, number in changes if time > now - seconds)

        if desired > current:
            limits = []
            for policy in self.rule.up.policies:
                begun = current - within(self._added, policy.seconds) + within(self._removed, policy.seconds)
                limits.append(math.ceil(begun * (1 + policy.value / 100)) if policy.percent else begun + policy.value)
            limit = (max if self.rule.up.most else min)(limits)
            desired = min(desired, max(limit, current))
        elif desired < current:
            limits = []
            for policy in self.rule.down.policies:
                begun = current + within(self._removed, policy.seconds) - within(self._added, policy.seconds)
                limits.append(int(begun * (1 - policy.value / 100)) if policy.percent else begun - policy.value)
            limit = (min if self.rule.down.most else max)(limits)
            desired = max(desired, min(limit, current))
        return min(max(desired, self.rule.least), self.rule.most)
