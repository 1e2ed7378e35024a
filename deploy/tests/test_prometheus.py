"""Rules and alerts: valid, tested, explained, and about metrics that exist."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Set

import pytest
from conftest import DEPLOY, REPOSITORY, get, load, metrics_of, promtool, rules, run

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = rules("alerts.yaml")


def declared() -> Set[str]:
    """The metrics that the server declares."""
    sources = (REPOSITORY / "server" / "daemon" / "src").rglob("*.rs")
    return {name for source in sources for name in re.findall(r'"(pba_[a-z_]+)"', source.read_text())}


def test_promtool_reads_the_rules() -> None:
    run([promtool(), "check", "rules", str(PROMETHEUS / "alerts.yaml"), str(PROMETHEUS / "recording.yaml")])


@pytest.mark.parametrize("file", ["prometheus/kubernetes.yml", "compose/prometheus.yml"])
def test_promtool_reads_the_configuration(file: str) -> None:
    run([promtool(), "check", "config", str(DEPLOY / file)])


@pytest.mark.parametrize("file", sorted((PROMETHEUS / "tests").glob("*.yaml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file) -> None:  # type: ignore[no-untyped-def]
    run([promtool(), "test", "rules", str(file)])


def test_each_alert_is_tested_firing_and_not_firing() -> None:
    fires: Set[str] = set()
    rests: Set[str] = set()
    for test in load(PROMETHEUS / "tests" / "alerts.yaml")["tests"]:
        for case in test["alert_rule_test"]:
            # Otherwise the time of the test could be one before the alert can fire at all.
            (fires if case["exp_alerts"] else rests).add(case["alertname"])
    names = {rule["alert"] for rule in ALERTS}
    assert (fires, rests) == (names, names)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: Dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    page, anchor = annotations["runbook_url"].split("#")
    headings = re.findall(r"^## (.+)$", (DEPLOY / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}, f"{page} has no section {anchor}"


def test_the_runbook_has_no_other_sections() -> None:
    headings = re.findall(r"^## (Pba.+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    anchors = [rule["annotations"]["runbook_url"].split("#")[1] for rule in ALERTS]
    # In the order of the alerts; two may share one.
    assert [heading.lower() for heading in headings] == list(dict.fromkeys(anchors))


def test_every_metric_that_is_named_exists() -> None:
    texts: List[str] = [
        *(rule["expr"] for rule in [*ALERTS, *rules("recording.yaml")]),
        (DEPLOY / "grafana" / "pba.json").read_text(),
        (DEPLOY / "kubernetes" / "components" / "autoscaling" / "scaledobject.yaml").read_text(),
        (DEPLOY / "helm" / "pba" / "templates" / "scaledobject.yaml").read_text(),
        (DEPLOY / "runbook.md").read_text(),
    ]
    named = {name for text in texts for name in metrics_of(text)}
    assert len(named) > 40, named
    assert not named - declared(), f"the server has no {sorted(named - declared())}"


def test_promtool_reads_the_metrics(server) -> None:  # type: ignore[no-untyped-def]
    run([promtool(), "check", "metrics"], input=get(server.url + "/metrics"))
