"""The page that asks for a token."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Iterator, Tuple

import pytest
from conftest import Server, binary

# Where pictures of the page are kept, to look at them.
SHOTS = os.environ.get("PBA_TEST_SHOTS")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Server, str]]:
    """A server with one token, and the token."""
    command = [str(binary()), "token", "new", "--role", "researcher", "--name", "alice", "--json"]
    new = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    file: Path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(f'[[tokens]]\nname = "alice"\nrole = "researcher"\nsha256 = "{new["sha256"]}"\n')
    server = Server("--tokens-file", str(file))
    yield server, new["token"]
    server.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_signs_in_and_out(guarded: Tuple[Server, str], open_page, width: int, scheme: str) -> None:
    (server, token), opened = guarded, open_page(width, scheme)
    page = opened.page

    def check(name: str) -> None:
        # A page without a token is refused, and is the form all the same. So is the icon, which the browser asks for.
        page.wait_for_load_state("networkidle")
        opened.errors = [error for error in opened.errors if "401" not in error]
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{SHOTS}/{name}-{scheme}-{width}.png")
        opened.check()

    page.goto(f"{server.url}/start")
    assert page.title() == "Sign in – PBA Server"
    # It looks like the other pages, although it loads nothing.
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    check("sign-in")
    page.get_by_label("Token").fill("pba_wrong")
    page.get_by_role("button", name="Sign in").click()
    assert "none of this server's" in page.get_by_role("alert").inner_text()
    check("sign-in-again")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/start")
    assert page.title() == "Start a job – PBA Server"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
    page.goto(f"{server.url}/v1/session")
    assert "Signed in as alice (researcher)." in page.locator("main").inner_text()
    check("signed-in")
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_label("Token").is_visible()


def test_the_form_works_without_javascript(guarded: Tuple[Server, str], open_page) -> None:
    (server, token), page = guarded, open_page(java_script_enabled=False).page
    page.goto(f"{server.url}/schedules/cifar10-pba")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    assert page.title() == "cifar10-pba – PBA Server"
