"""What the server says of its API is what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

validator = pytest.importorskip("openapi_spec_validator", reason="needs Python 3.10")

# Requests for each operation and phase; more of them: PBA_TEST_API_EXAMPLES=1000.
EXAMPLES = os.environ.get("PBA_TEST_API_EXAMPLES", "12")
# Which values of one parameter go with which of another is said in words only.
EXCLUDED_CHECKS = "positive_data_acceptance"
# Events go on for as long as a job runs. Without a trainer, to start a job of any kind is answered 503.
HAS_TRAINER = os.environ.get("PBA_TEST_TRAINER") != "0"
EXCLUDED_OPERATIONS = "_events$" if HAS_TRAINER else "_(events|start)$"


def test_the_document_is_openapi(server) -> None:
    with urllib.request.urlopen(server.url + "/openapi.json", timeout=60) as answer:
        document = json.load(answer)
    validator.validate(document)
    assert document["openapi"].startswith("3.1")
    batches = document["paths"]["/v1/datasets/{dataset}/epochs/{epoch}/batches"]["get"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in batches["parameters"]}
    assert parameters["batch_size"] == {"type": "integer", "default": 128, "minimum": 1, "maximum": 65536}


def test_the_server_does_what_the_document_says(start_server, tmp_path: Path) -> None:
    server = start_server()
    arguments = [server.url + "/openapi.json", "--max-examples", EXAMPLES, "--seed", "1"]
    arguments += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", EXCLUDED_CHECKS]
    arguments += ["--exclude-operation-id-regex", EXCLUDED_OPERATIONS]
    ran = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout.decode()[-8000:]
    with urllib.request.urlopen(server.url + "/readyz", timeout=60) as answer:
        assert answer.status == 200
