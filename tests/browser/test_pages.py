"""Every page, in light and dark, wide and narrow, with JavaScript and without."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
from conftest import COMPARISON, SEARCH, SMALL, Server

# Where pictures of the pages are kept, to look at them.
SHOTS = os.environ.get("PBA_TEST_SHOTS")

PAGES = {
    "overview": ("/", "Overview"),
    "dataset": ("/datasets/shapes?epoch=150&schedule=cifar10-pba", "shapes"),
    "schedule": ("/schedules/cifar10-pba", "cifar10-pba"),
    "constant": ("/schedules/randaugment:2:9", "randaugment:2:9"),
    "two-schedules": ("/schedules/cifar10-pba?with=svhn-pba", "cifar10-pba and svhn-pba"),
    "start": ("/start", "Start a job"),
    "missing": ("/datasets/nothing", "404 Not Found"),
}
OF_JOBS = {
    "search": ("/searches/learned", "learned"),
    "comparison": ("/comparisons/compared", "compared"),
    "evaluation": ("/evaluations/evaluated", "evaluated"),
    "overview-of-jobs": ("/", "Overview"),
}
# Longer names are refused.
LONG = "n" * 31 + "-" + "m" * 32
# Pages that show it, and whether all of their tables fit into a window.
WITH_LONG = {
    "overview": ("/", True),
    "dataset": (f"/datasets/shapes?schedule={LONG}", False),
    "schedule": (f"/schedules/{LONG}", False),
    "two-schedules": (f"/schedules/cifar10-pba?with={LONG}", False),
    "start": ("/start", True),
    "search": (f"/searches/{LONG}", False),
    "comparison": (f"/comparisons/{LONG}", True),
    "evaluation": (f"/evaluations/{LONG}", True),
}


def look(opened, server: Server, name: str, address: str, title: str, width: int, scheme: str) -> None:
    page = opened.page
    page.goto(server.url + address, wait_until="networkidle" if "searches" not in address else "load")
    assert page.title() == f"{title} – PBA Server"
    if name == "missing":
        # That is what was asked for.
        opened.errors = [error for error in opened.errors if "404" not in error]
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}-{scheme}-{width}.png", full_page=True)
    opened.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(server: Server, open_page, name: str, width: int, scheme: str) -> None:
    look(open_page(width, scheme), server, name, *PAGES[name], width, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", OF_JOBS)
def test_a_page_of_a_job_is_sound(server: Server, jobs, open_page, name: str, width: int, scheme: str) -> None:
    look(open_page(width, scheme), server, name, *OF_JOBS[name], width, scheme)


@pytest.fixture(scope="module")
def long(server: Server, with_trainer: None) -> None:
    """Jobs and a schedule with the longest name that there may be, and more schedules than the overview shows first."""
    server.json("/v1/searches", {**SEARCH, "epochs": 4, "name": LONG})
    server.wait(f"/v1/searches/{LONG}", "done")
    document = server.json("/v1/schedules/cifar10-pba")
    for number in range(20):
        name = f"many-{number}"
        server.json(f"/v1/schedules/{name}", {**document, "name": name}, "PUT")
    server.json("/v1/comparisons", {**COMPARISON, "epochs": 1, "arms": ["none", LONG], "name": LONG})
    server.wait(f"/v1/comparisons/{LONG}", "done")
    server.json("/v1/evaluations", {**SMALL, "epochs": 1, "schedule": LONG, "name": LONG})
    server.wait(f"/v1/evaluations/{LONG}", "done")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", WITH_LONG)
def test_long_names_fit(server: Server, long, open_page, name: str, width: int) -> None:
    address, tables_fit = WITH_LONG[name]
    opened = open_page(width)
    page = opened.page
    page.goto(server.url + address, wait_until="load")
    if name == "dataset":
        page.wait_for_load_state("networkidle")
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/long-{name}-{width}.png", full_page=True)
    opened.check()
    if tables_fit:
        wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(it => it.scrollWidth > it.clientWidth).map(it => it.textContent)")
        assert wide == []


def test_streams_fit_a_narrow_window(server: Server, open_page) -> None:
    # It is sent as far as the sockets hold, and then waits.
    with urllib.request.urlopen(f"{server.url}/v1/datasets/shapes/epochs/0/batches"):
        opened = open_page(390)
        opened.page.goto(server.url)
        opened.page.wait_for_selector("#streams tbody tr")
        if SHOTS:
            opened.page.screenshot(path=f"{SHOTS}/streams-390.png", full_page=True)
        region = opened.page.locator("#streams .scroll")
        assert region.evaluate("it => it.scrollWidth - it.clientWidth") == 0
        assert "Who waits" in region.evaluate("it => getComputedStyle(it.querySelector('td'), '::before').content")
        opened.check()


def test_the_newest_schedules_come_first(server: Server, long, open_page) -> None:
    page = open_page().page
    page.goto(server.url)
    names = page.locator("#schedules > .scroll").first.locator("tbody th").all_inner_texts()
    assert len(names) == 8
    assert names[names.index("many-19"):][:3] == ["many-19", "many-18", "many-17"]
    earlier = page.locator("#earlier-schedules")
    assert not earlier.locator("a[href='/schedules/many-0']").is_visible()
    earlier.locator("summary").click()
    assert earlier.locator("a[href='/schedules/many-0']").is_visible()


def test_the_slider_changes_the_picture(server: Server, open_page) -> None:
    opened = open_page()
    page = opened.page
    page.goto(f"{server.url}/datasets/shapes", wait_until="networkidle")
    augmented, original = page.locator("#augmented"), page.locator("#original")
    before, untouched = augmented.get_attribute("src"), original.get_attribute("src")
    # By the keyboard, as everything can be done.
    page.locator("#epoch").focus()
    page.keyboard.press("End")
    page.wait_for_function("before => document.getElementById('augmented').src !== before", arg=before)
    page.wait_for_function("before => document.getElementById('original').src !== before", arg=untouched)
    assert page.locator("form#sheets output").inner_text() == "199"
    drawn = page.evaluate("async id => { const image = document.getElementById(id); await image.decode(); return image.naturalWidth; }", "augmented")
    assert drawn > 100
    # The address is that of what is shown.
    assert "epoch=199" in page.url
    second = augmented.get_attribute("src")
    page.select_option("#schedule", "trivial-augment-wide")
    page.wait_for_function("before => document.getElementById('augmented').src !== before", arg=second)
    # The other one names what cannot be drawn.
    page.evaluate("document.querySelector('#schedule').add(new Option('gone', 'gone'))")
    page.select_option("#schedule", "gone")
    page.wait_for_selector("#sheet-problem:not([hidden])")
    assert "no schedule" in page.locator("#sheet-problem").inner_text()


def test_a_new_schedule_appears_without_a_reload(server: Server, open_page) -> None:
    opened = open_page()
    opened.page.goto(f"{server.url}/datasets/shapes")
    overview = open_page()
    overview.page.goto(f"{server.url}/")
    document = server.json("/v1/schedules/cifar10-pba")
    document["name"] = "fresh"
    server.json("/v1/schedules/fresh", document, "PUT")
    opened.page.wait_for_selector("#schedule option[value=fresh]", state="attached")
    overview.page.wait_for_selector("#schedules a[href='/schedules/fresh']")
    # What was chosen stays.
    assert opened.page.locator("#schedule").input_value() != "fresh"


def test_everything_can_be_read_without_javascript(server: Server, jobs, open_page) -> None:
    opened = open_page(java_script_enabled=False)
    page = opened.page
    page.goto(f"{server.url}/")
    assert page.locator("noscript").first.is_visible()
    figures = page.locator("#figures dd").all_inner_texts()
    assert len(figures) == 8 and all(figures)
    assert page.locator("#jobs a[href='/searches/learned']").count() == 1
    page.goto(f"{server.url}/datasets/shapes?split=test&schedule=svhn-pba&epoch=7")
    assert page.locator("figure svg.chart").count() >= 2
    # The classes of both splits, each with its number.
    assert page.locator("#splits svg .number").count() == 2 * 10
    assert page.locator("#splits svg .number").first.text_content() == "1,000"
    for image in ("original", "augmented"):
        assert "/epochs/7/" in page.locator(f"#{image}").get_attribute("src")
    page.get_by_role("button", name="Show").click()
    assert "epoch=7" in page.url
    page.goto(f"{server.url}/schedules/cifar10-pba")
    # Each op, the stacks and the ops per image.
    assert page.locator("svg.chart").count() == 15 + 3
    page.goto(f"{server.url}/searches/learned")
    assert page.locator("#members tbody tr").count() == 4
    assert page.locator("#scores svg .band").count() == 6
    page.goto(f"{server.url}/comparisons/compared")
    assert page.locator(".verdict").inner_text() == jobs["comparison"]["verdict"]
    assert page.locator("#arms tbody tr").count() == 3
    # What needs scripts is not there.
    for address in ("/searches/learned", "/comparisons/compared", "/evaluations/evaluated", "/start"):
        page.goto(f"{server.url}{address}")
        assert page.locator("button:visible").count() == 0, address


def test_a_page_says_when_it_is_stale(open_page) -> None:
    server = Server()
    opened = open_page()
    opened.page.goto(server.url)
    shown = opened.page.locator("#as-of").inner_text()
    opened.page.wait_for_function("shown => document.getElementById('as-of').textContent !== shown", arg=shown)
    assert opened.page.locator("#stale").inner_text() == ""
    server.stop()
    opened.page.wait_for_selector("body.is-stale")
    assert opened.page.locator(".as-of").inner_text().endswith("UTC, no answer since")


def test_names_are_text(server: Server, open_page) -> None:
    opened = open_page()
    opened.page.goto(f"{server.url}/schedules/<img src=x onerror=alert(1)>")
    assert opened.page.locator("main img").count() == 0
    assert "onerror" in opened.page.locator("main").inner_text()
