"""The chart, rendered by Helm's own engine, makes what kustomize makes."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List

import pytest
import yaml
from conftest import DEPLOY, load, version
from test_kubernetes import build

CHART = DEPLOY / "helm" / "pba"


def helm() -> Any:
    return pytest.importorskip("helm_python", reason="Helm's engine is not here: PyPI's helm-python-sdk has it")


def render(values: Dict[str, Any], name: str = "pba", namespace: str = "pba") -> List[Dict[str, Any]]:
    with helm().Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=name, namespace=namespace)
    texts = [text for file, text in files.items() if not file.endswith("NOTES.txt")]
    return [item for text in texts for item in yaml.safe_load_all(text) if item]


# Labels and annotations that tell whose an object is.
OWN = (
    "helm.sh/chart",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/resource-policy",
    "checksum/config",
)


def _name(value: Dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def comparable(objects: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The objects by kind and name, without what each tool adds of its own."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            cleaned = {key: clean(inner) for key, inner in value.items() if key not in OWN}
            return {key: inner for key, inner in cleaned.items() if key != "annotations" or inner}
        if isinstance(value, list):
            # Volumes and the like are found by name; what is said in order, as arguments, keeps it.
            cleaned = [clean(inner) for inner in value]
            return sorted(cleaned, key=_name) if all(isinstance(inner, dict) for inner in cleaned) else cleaned
        # Kustomize appends a digest to the name of a ConfigMap.
        return re.sub(r"^pba-config-\w{10}$", "pba-config", value) if isinstance(value, str) else value

    return {
        f"{item['kind']} {clean(item['metadata']['name'])}": clean(item)
        for item in objects
        if item["kind"] != "Namespace"
    }


SWITCHES = {"base": (), "overlays/gpu": ("gpu",), "overlays/tls": ("tls",), "overlays/autoscaling": ("autoscaling",)}


@pytest.mark.parametrize("which", [*SWITCHES, "overlays/all"])
def test_it_makes_what_kustomize_makes(which: str) -> None:
    on = SWITCHES.get(which, ("gpu", "tls", "autoscaling"))
    values = {name: {"enabled": True} for name in on}
    values["config"] = (DEPLOY / "kubernetes" / "base" / "pba.toml").read_text()
    ours, theirs = comparable(render(values)), comparable(build(which))
    for name in sorted({*ours, *theirs}):
        assert ours.get(name) == theirs.get(name), name


def test_the_chart_itself_has_the_same_settings() -> None:
    def settings(text: str) -> List[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    values = load(CHART / "values.yaml")
    assert settings(values["config"]) == settings((DEPLOY / "kubernetes" / "base" / "pba.toml").read_text())


def test_two_releases_share_nothing() -> None:
    one, other = render({}, name="one"), render({}, name="other")
    assert not {(item["kind"], item["metadata"]["name"]) for item in one} & {
        (item["kind"], item["metadata"]["name"]) for item in other
    }
    selectors = [item["spec"]["selector"] for item in one if item["kind"] == "Service"]
    assert all(selector["app.kubernetes.io/instance"] == "one" for selector in selectors)


def test_a_claim_of_ones_own_is_used() -> None:
    objects = render({"volume": {"existingClaim": "mine"}})
    assert not [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
    claims = re.findall(r"claimName: (\S+)", yaml.safe_dump_all(objects))
    assert claims == ["mine", "mine"]


def test_helm_lints_it() -> None:
    found = helm().lint(str(CHART))
    # Its one message is that it has no icon.
    assert not found["errors"] and [message["path"] for message in found["messages"]] == ["Chart.yaml"], found


def test_its_version_is_that_of_the_server() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == version()
