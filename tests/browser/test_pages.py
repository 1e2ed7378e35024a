"""Every page, in light and dark, wide and narrow, with JavaScript and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Server

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
