"""A search and a comparison from their forms to their ends, and one that is cancelled."""

from __future__ import annotations

import pytest
from conftest import PATIENCE_SECONDS, SEARCH, Server

pytestmark = pytest.mark.usefixtures("with_trainer")
PATIENCE = 1000 * PATIENCE_SECONDS


def fill(form, fields) -> None:
    for name, value in fields.items():
        form.locator(f"input[name={name}]").first.fill(str(value))


def press(page, name: str) -> None:
    """Presses a button of a job's page, and confirms it."""
    page.locator("#actions").get_by_role("button", name=name).click()
    page.locator("#confirm").get_by_role("button", name="Yes").click()


def test_a_search_is_started_and_watched(server: Server, open_page) -> None:
    opened = open_page()
    page = opened.page
    page.goto(f"{server.url}/start", wait_until="networkidle")
    form = page.locator("form[data-url='/v1/searches']")
    fill(form, {"name": "watched", "population": 4, "epochs": 12, "perturbation_interval": 2, "train_size": 256, "val_size": 128, "seed": 3})
    form.get_by_role("button", name="Start the search").click()
    page.wait_for_url(f"{server.url}/searches/watched")
    # It is followed without a reload: a mark on the window stays.
    page.evaluate("window.kept = true")
    page.wait_for_selector("#scores svg", timeout=PATIENCE)
    page.wait_for_selector("#standing .state.done", timeout=PATIENCE)
    assert page.evaluate("window.kept") is True
    assert page.locator("#members tbody tr").count() == 4
    assert page.locator("#standing a[href='/schedules/watched']").count() == 1
    opened.check()
    # The same name is taken, which the server says.
    page.goto(f"{server.url}/start", wait_until="networkidle")
    fill(page.locator("form[data-url='/v1/searches']"), {"name": "watched"})
    page.get_by_role("button", name="Start the search").click()
    page.wait_for_selector("form[data-url='/v1/searches'] [role=alert]:not([hidden])")
    assert "watched" in page.locator("form[data-url='/v1/searches'] [role=alert]").inner_text()


def test_a_comparison_is_started_watched_and_removed(server: Server, open_page) -> None:
    opened = open_page(390)
    page = opened.page
    page.goto(f"{server.url}/start", wait_until="networkidle")
    form = page.locator("form[data-url='/v1/comparisons']")
    fill(form, {"name": "weighed", "seeds": 2, "epochs": 2, "train_size": 128})
    form.locator("input[data-type=list]").fill("cutout:4")
    form.locator("select[name=score]").select_option("val")
    form.get_by_role("button", name="Start the comparison").click()
    page.wait_for_url(f"{server.url}/comparisons/weighed")
    page.wait_for_selector("#standing .verdict", timeout=PATIENCE)
    page.wait_for_selector("#contrasts svg")
    assert page.locator("#arms tbody tr").count() == 3
    opened.check()
    press(page, "Remove")
    page.wait_for_url(f"{server.url}/")
    assert page.locator("#jobs a[href='/comparisons/weighed']").count() == 0


def test_a_search_is_cancelled_resumed_and_finished(server: Server, open_page) -> None:
    # Long enough not to end by itself.
    server.json("/v1/searches", {**SEARCH, "name": "long", "epochs": 3000})
    opened = open_page()
    page = opened.page
    page.goto(f"{server.url}/searches/long")
    page.wait_for_selector("#standing .state.running", timeout=PATIENCE)
    # The overview counts the trainer's cores.
    overview = open_page().page
    overview.goto(f"{server.url}/")
    busy = "() => [...document.querySelectorAll('#figures div')].some(figure => /^Training/.test(figure.textContent.trim()) && Number(figure.querySelector('dd').firstChild.data) > 0)"
    overview.wait_for_function(busy, timeout=PATIENCE)
    press(page, "Cancel")
    page.wait_for_selector("#standing .state.cancelled", timeout=PATIENCE)
    page.locator("#actions").get_by_role("button", name="Resume").click()
    page.wait_for_selector("#standing .state.running", timeout=PATIENCE)
    page.wait_for_selector("#scores svg", timeout=PATIENCE)
    press(page, "Finish")
    page.wait_for_selector("#standing .state.done", timeout=PATIENCE)
    opened.check()
