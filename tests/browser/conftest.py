"""A real server, a real trainer and a Chromium that opens the pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 240
# A search and a comparison that take seconds.
SMALL = {"model": "tiny", "train_size": 128, "batch_size": 64, "lr": 0.02, "seed": 11, "device": "cpu"}
SEARCH = {**SMALL, "population": 4, "epochs": 12, "perturbation_interval": 2, "val_size": 128}
COMPARISON = {**SMALL, "epochs": 3, "seeds": 3, "arms": ["none", "cifar10-pba", "trivial-augment-wide"], "score": "val", "val_size": 200}


def binary() -> Path:
    """The server: $PBA_BIN, or what the build left."""
    path = Path(os.environ.get("PBA_BIN") or REPOSITORY / "target/debug/pba")
    if not path.exists():
        pytest.exit(f"{path} is missing: `make test` builds it; or set PBA_BIN", returncode=1)
    return path


def trainer() -> Optional[Path]:
    """The trainer: $PBA_TRAINER, or what the build left; none in a build without one."""
    if os.environ.get("PBA_TEST_TRAINER") == "0":
        return None
    path = Path(os.environ.get("PBA_TRAINER") or REPOSITORY / "target/debug/pba-trainer")
    if not path.exists():
        pytest.exit(f"{path} is missing: `make test` builds it; `make test TRAINER=0` does without it", returncode=1)
    return path


class Server:
    """A running `pba serve` on a free port."""

    def __init__(self, *flags: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="pba-browser-")
        command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{self.folder}/data", *flags]
        found = trainer()
        if found:
            command += ["--trainer", str(found)]
        self.log = open(f"{self.folder}/log", "wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, cwd=self.folder)
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), line + Path(f"{self.folder}/log").read_text()
        self.url = line.removeprefix("listening on ").strip()
        for _ in range(PATIENCE_SECONDS * 10):
            try:
                urllib.request.urlopen(f"{self.url}/readyz").close()
                return
            except urllib.error.HTTPError as error:
                assert error.code == 503, error
                assert self.process.poll() is None
                time.sleep(0.1)
        raise AssertionError("the server does not get ready")

    def json(self, path: str, body: Optional[Dict[str, Any]] = None, method: Optional[str] = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def wait(self, path: str, state: str) -> Any:
        """Follows a job to its end."""
        with urllib.request.urlopen(f"{self.url}{path}/events", timeout=PATIENCE_SECONDS) as events:
            for _ in events:
                pass
        job = self.json(path)
        assert job["state"] == state, job
        return job

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def with_trainer() -> None:
    if trainer() is None:
        pytest.skip("this build has no trainer (TRAINER=0)")


@pytest.fixture(scope="session")
def jobs(server: Server, with_trainer: None) -> Dict[str, Any]:
    """A search and a comparison that are done."""
    server.json("/v1/searches", {**SEARCH, "name": "learned"})
    server.json("/v1/comparisons", {**COMPARISON, "name": "compared"})
    server.json("/v1/evaluations", {**SMALL, "epochs": 3, "schedule": "cifar10-pba", "name": "evaluated"})
    return {
        "evaluation": server.wait("/v1/evaluations/evaluated", "done"),
        "search": server.wait("/v1/searches/learned", "done"),
        "comparison": server.wait("/v1/comparisons/compared", "done"),
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Root has no sandbox; the pages are our own.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
        path = os.environ.get("PBA_TEST_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Opened:
    """A page that remembers what went wrong on it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.errors: List[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def check(self) -> None:
        """No error on the console, nothing that axe finds, and nothing wider than the window."""
        assert self.errors == []
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{wide} pixels too wide"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    contexts: List[BrowserContext] = []

    def open_page(width: int = 1280, scheme: str = "light", **options: Any) -> Opened:
        viewport = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, **options))
        return Opened(contexts[-1])

    yield open_page
    for context in contexts:
        context.close()
