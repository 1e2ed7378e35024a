"""Grafana's dashboard: its shape, and each of its queries against a real Prometheus that scrapes a server under load.

There is no Grafana here; what it would ask, these tests ask. PBA_TEST_DASHBOARD_SECONDS is how long the load lasts: 30
by default, 600 in `make test-dashboard`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
from itertools import combinations, count
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import yaml
from conftest import DEPLOY, START_SECONDS, Server, binary, environment, get, metrics_of, tool
from test_prometheus import declared

SECONDS = int(os.environ.get("PBA_TEST_DASHBOARD_SECONDS", "30"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "pba.json").read_text())
PANELS = DASHBOARD["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", [])]
VARIABLES = {"job": "pba", "instance": ".*", "dataset": ".*", "__rate_interval": "20s"}
# What has no data here: without TLS, without a search that runs, without an image that is kept decoded, without an
# alert that fires.
EMPTY = {"Certificate expires in", "Epoch", "Best accuracy", "Decoded images found in the cache", "Alerts that fire"}


def test_panels_lie_beside_each_other() -> None:
    assert DASHBOARD["schemaVersion"] >= 39 and DASHBOARD["uid"] == "pba"
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)

    def cells(panel: Dict[str, Any]) -> Tuple[range, range]:
        place = panel["gridPos"]
        return range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])

    for panel in PANELS:
        columns, lines = cells(panel)
        assert len(columns) > 0 and len(lines) > 0 and 0 <= columns[0] and columns[-1] < 24, panel["title"]
    for one, other in combinations(PANELS, 2):
        shared = [set(mine) & set(others) for mine, others in zip(cells(one), cells(other))]
        assert not all(shared), f"{one['title']} lies on {other['title']}"


def test_everything_is_asked_of_the_data_source_that_was_chosen() -> None:
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        for asks in [panel, *panel.get("targets", [])] if panel["type"] != "row" else []:
            assert asks["datasource"] == source, panel["title"]
    for title, query in QUERIES:
        used = set(re.findall(r"\$(\w+)", query))
        assert used <= known, f"{title}: {used - known}"


def substituted(query: str) -> str:
    return re.sub(r"\$(\w+)", lambda name: VARIABLES[name[1]], query)


class Prometheus:
    """A running Prometheus that scrapes a server each second, with the rules of deploy/prometheus."""

    def __init__(self, program: str, folder: Path, server: Server) -> None:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
            "rule_files": [str(DEPLOY / "prometheus" / "*.yaml")],
            "scrape_configs": [
                {"job_name": "pba", "static_configs": [{"targets": [server.url[len("http://") :]]}]},
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self._log = open(folder / "prometheus.log", "wb")
        command = [
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address={address}",
        ]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment())
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                get(self.url + "/-/ready")
                return
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, (folder / "prometheus.log").read_text()
                time.sleep(0.2)
        raise AssertionError("prometheus is not ready")

    def ask(self, path: str, **parameters: str) -> Any:
        """An answer of its API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path, server: Server) -> Iterator[Prometheus]:
    started = Prometheus(tool("prometheus", "Debian's package prometheus has it"), tmp_path, server)
    yield started
    started.stop()


class Load:
    """One client that takes what it gets and two that are slow, each reading one epoch after another until the end."""

    def __init__(self, server: Server) -> None:
        self._over = threading.Event()
        self._server = server
        self.epochs = 0
        self._threads = [threading.Thread(target=work) for work in (self._fast, self._slow, self._slow)]
        for thread in self._threads:
            thread.start()

    def _fast(self) -> None:
        # Large images are more work for the server than for the client.
        options = ["--dataset", "shapes", "--batch-size", "64", "--base", "random_resized_crop:128,flip"]
        command = [str(binary()), "stream", self._server.url, *options]
        for epoch in count():
            if self._over.is_set():
                break
            subprocess.run([*command, "--epoch", str(epoch % 90)], env=environment(), check=True, capture_output=True)
            self.epochs += 1

    def _slow(self) -> None:
        host = self._server.url[len("http://") :]
        for epoch in count():
            if self._over.is_set():
                break
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request("GET", f"/v1/datasets/shapes/epochs/{epoch % 90}/batches?batch_size=256")
            # So that the kernel takes little more than is read.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                while not self._over.wait(0.5) and response.read(65536):
                    pass
            connection.close()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads)


def test_every_query_answers_under_load(server: Server, prometheus: Prometheus) -> None:
    load = Load(server)
    begin = time.time()
    try:
        time.sleep(SECONDS)
        # The fast client is between two epochs now and then.
        lately = "quantile_over_time(0.5, sum by (side) (pba_streams_waiting)[20s:1s])"
        waits = prometheus.ask("query", query=lately)
    finally:
        load.stop()
    assert load.epochs > 0
    during = {"start": str(begin), "end": str(time.time()), "step": "5"}

    exists = declared()
    without: List[str] = []
    for title, query in QUERIES:
        result = prometheus.ask("query_range", query=substituted(query), **during)["result"]
        # A metric that no longer exists is another test's complaint.
        if not result and title not in EMPTY and set(metrics_of(query)) <= exists:
            without.append(f"{title}: {query}")
    assert not without, "no data for\n" + "\n".join(without)

    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert prometheus.ask(f"label/{label}/values", **{"match[]": substituted(metric)}), variable["name"]

    for group in prometheus.ask("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
            # A fast client waits, and so says PbaClientsWait after a quarter of an hour.
            assert rule.get("state") != "firing" or rule["name"] == "PbaClientsWait", rule

    if "pba_streams_waiting" in exists:
        sides = {series["metric"]["side"]: float(series["value"][1]) for series in waits["result"]}
        assert sides == {"client": 1, "server": 2}
