"""What kustomize makes of base and overlays: valid, restricted, and at one with the settings and rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import yaml
from conftest import DEPLOY, binary, kustomize, load, rules, run, tool, version

KUBERNETES = DEPLOY / "kubernetes"
BUILDS = ["base", *(f"overlays/{folder.name}" for folder in sorted((KUBERNETES / "overlays").iterdir()))]


def build(which: str) -> List[Dict[str, Any]]:
    """The objects of base or an overlay."""
    return list(yaml.safe_load_all(kustomize(KUBERNETES / which)))


@pytest.fixture(params=BUILDS)
def objects(request: pytest.FixtureRequest) -> List[Dict[str, Any]]:
    return build(request.param)


def workloads(objects: List[Dict[str, Any]]) -> Iterator[Dict[str, Any]]:
    return (item for item in objects if item["kind"] in ("Deployment", "StatefulSet"))


def named(objects: List[Dict[str, Any]], kind: str, name: str) -> Dict[str, Any]:
    [found] = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("which", BUILDS)
def test_the_schemas_of_kubernetes_allow_it(which: str, tmp_path: Path) -> None:
    validate = tool("kubernetes-validate", "PyPI's kubernetes-validate has it")
    # Of what others define there is no schema; the rule is tested below, and compared with the chart.
    known = [item for item in build(which) if not item["apiVersion"].startswith("keda.sh/")]
    assert len(known) >= 9
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(known))
    run([validate, "--strict", str(tmp_path / "objects.yaml")])


def test_pods_are_restricted(objects: List[Dict[str, Any]]) -> None:
    for workload in workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"]["drop"] == ["ALL"]
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert {name: limits[name] for name in requests} == requests and set(requests) == {"cpu", "memory"}


def test_images_are_of_this_version(objects: List[Dict[str, Any]]) -> None:
    images = {
        container["image"]
        for workload in workloads(objects)
        for container in workload["spec"]["template"]["spec"]["containers"]
    }
    assert images <= {f"localhost/pba:{version()}", f"localhost/pba-trainer:{version()}"}


def test_only_the_writer_writes(objects: List[Dict[str, Any]]) -> None:
    writers = []
    for workload in workloads(objects):
        [container] = workload["spec"]["template"]["spec"]["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts["/datasets"]["readOnly"]
        if not mounts["/var/lib/pba"].get("readOnly"):
            writers.append((workload["kind"], workload["spec"]["replicas"]))
    assert writers == [("StatefulSet", 1)]


def test_probes_ask_the_port_for_metrics(objects: List[Dict[str, Any]]) -> None:
    for workload in workloads(objects):
        [container] = workload["spec"]["template"]["spec"]["containers"]
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startup": "/livez",
            "liveness": "/livez",
            "readiness": "/readyz",
        }
        assert all(probe["port"] == "metrics" for probe in probes.values())


def test_selectors_find_their_pods(objects: List[Dict[str, Any]]) -> None:
    pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads(objects)]
    wanted = {"pba": ["replica"], "pba-writer": ["writer"], "pba-metrics": ["replica", "writer"]}
    for item in objects:
        if item["kind"] == "Service":
            selector = item["spec"]["selector"].items()
            found = [labels["app.kubernetes.io/component"] for labels in pods if selector <= labels.items()]
            assert found == wanted[item["metadata"]["name"]]
    policy = named(objects, "NetworkPolicy", "pba")["spec"]["podSelector"]["matchLabels"]
    assert all(policy.items() <= labels.items() for labels in pods)
    budget = named(objects, "PodDisruptionBudget", "pba")["spec"]["selector"]["matchLabels"]
    assert [budget.items() <= labels.items() for labels in pods] == [True, False]


def test_there_is_time_to_drain(objects: List[Dict[str, Any]]) -> None:
    sample = (DEPLOY / "pba.toml").read_text()
    seconds = [int(value) for value in re.findall(r"^drain(?:_delay)?_seconds = (\d+)", sample, re.MULTILINE)]
    assert seconds
    for workload in workloads(objects):
        assert workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > sum(seconds)


@pytest.mark.parametrize("file", ["kubernetes/base/pba.toml", "compose/pba.toml"])
def test_the_server_accepts_the_settings(file: str, tmp_path: Path) -> None:
    program = binary()
    text = (DEPLOY / file).read_text()
    made = run([str(program), "token", "new", "--role", "admin", "--name", "test"]).stdout
    (tmp_path / "tokens.toml").write_text(made[made.index("[[tokens]]") :])
    # The rest is as it stands there.
    text = re.sub(r'tokens_file = ".*"', f'tokens_file = "{tmp_path}/tokens.toml"', text)
    (tmp_path / "pba.toml").write_text(text)
    listen = ["--listen", "0.0.0.0:8080", "--metrics-listen", "0.0.0.0:9090"]
    run(
        [
            str(program),
            "serve",
            "--check",
            "--config",
            str(tmp_path / "pba.toml"),
            "--data-dir",
            str(tmp_path),
            *listen,
        ]
    )


def test_the_autoscaler_follows_the_rules_of_prometheus() -> None:
    objects = build("overlays/autoscaling")
    scaler = named(objects, "ScaledObject", "pba")["spec"]
    assert "replicas" not in named(objects, "Deployment", "pba")["spec"]
    recorded = {rule["record"]: rule["expr"] for rule in rules("recording.yaml")}
    by_name = {trigger["name"]: trigger for trigger in scaler["triggers"]}

    def plain(expression: str) -> str:
        return re.sub(r"\s|by \(job\)|\{job=\"pba\"\}", "", expression)

    of_replicas = ' and on (instance) pba_writer{job="pba"} == 0'

    for name, rule in [
        ("clients-wait", "job:pba_client_wait:ratio_rate2m"),
        ("busy-cores", "job:pba_worker_busy:rate2m"),
        ("link", "job:pba_stream_bytes:rate2m"),
    ]:
        query = by_name[name]["metadata"]["query"]
        # Each sum is one over replicas: they cannot relieve the writer.
        assert query.count(of_replicas) == query.count("sum(") > 0
        assert plain(query.replace(of_replicas, "")) == plain(recorded[rule])
    [container] = named(objects, "Deployment", "pba")["spec"]["template"]["spec"]["containers"]
    cores = float(container["resources"]["limits"]["cpu"])
    assert float(by_name["busy-cores"]["metadata"]["threshold"]) == pytest.approx(0.7 * cores)
    # A ratio of the replicas that there are, and numbers for each of them.
    types = {name: trigger["metricType"] for name, trigger in by_name.items()}
    assert types == {"clients-wait": "Value", "busy-cores": "AverageValue", "link": "AverageValue"}


def test_clients_wait_longer_for_the_alert_than_for_the_autoscaler() -> None:
    """Otherwise the alert fires for ever where the autoscaler sees nothing to do."""
    scaler = named(build("overlays/autoscaling"), "ScaledObject", "pba")["spec"]
    [trigger] = [trigger for trigger in scaler["triggers"] if trigger["name"] == "clients-wait"]
    [alert] = [rule for rule in rules("alerts.yaml") if rule["alert"] == "PbaClientsWait"]
    tolerance = 0.1  # of the HorizontalPodAutoscaler, by default
    content = float(trigger["metadata"]["threshold"]) * (1 + tolerance)
    assert float(alert["expr"].rsplit(">", 1)[1]) > content


def test_an_overlay_has_all_components() -> None:
    used = load(KUBERNETES / "overlays" / "all" / "kustomization.yaml")["components"]
    assert sorted(Path(path).name for path in used) == sorted(
        path.name for path in (KUBERNETES / "components").iterdir()
    )
