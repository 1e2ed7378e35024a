"""The compose file, as a program that runs it reads it."""

from __future__ import annotations

import yaml
from conftest import DEPLOY, load, run, tool, version

COMPOSE = DEPLOY / "compose"


def test_podman_compose_reads_it() -> None:
    compose = tool("podman-compose", "PyPI's podman-compose has it")
    tool("podman", "podman-compose wants it; Debian's package podman has it")
    shown = run([compose, "-f", str(COMPOSE / "compose.yaml"), "config"]).stdout
    services = yaml.safe_load(shown[shown.index("name: pba") :])["services"]
    assert set(services) == {"pba", "prometheus", "grafana"}


def test_what_is_mounted_is_there() -> None:
    for service in load(COMPOSE / "compose.yaml")["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            # What a user names in a variable need not be there yet.
            if source.startswith("."):
                assert (COMPOSE / source).exists(), source


def test_images_are_pinned() -> None:
    images = {name: service["image"] for name, service in load(COMPOSE / "compose.yaml")["services"].items()}
    assert images["pba"] == f"localhost/pba:{version()}"
    assert all(not image.endswith(":latest") and ":" in image for image in images.values())


def test_only_this_machine_reaches_it_unless_told_otherwise() -> None:
    for service in load(COMPOSE / "compose.yaml")["services"].values():
        assert all(port.startswith(("127.0.0.1:", "${PBA_ADDRESS:-127.0.0.1}:")) for port in service["ports"])


def test_grafana_finds_what_prometheus_and_the_dashboard_are_called() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = load(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = load(provisioning / "dashboards" / "pba.yaml")["providers"]
    mounted = [volume.split(":")[1] for volume in load(COMPOSE / "compose.yaml")["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/pba.json" in mounted
    scrape = load(COMPOSE / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
