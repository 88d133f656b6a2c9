"""Pages in a browser, at the width of a phone and of a desk: a cell opens in place, and nothing is too wide.

Skipped where playwright or Chromium is not there. `GRADWITNESS_SCREENSHOTS=folder` keeps what was seen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradwitness import Benchmark, Report, Verdict
from tests.page.test_page import EVIL, UNTIMED, row, timing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = {"phone": 360, "desk": 1200}


@pytest.fixture(scope="module")
def report() -> str:
    rows = [
        row(candidate, network=network, dtype=dtype, parameter=f"layers.{i}.weight", error=1e-8 * (i + 1))
        for network in ("mlp", "a network with a long name", EVIL)
        for candidate in ("numpy", "torch.compile", "a candidate of mine")
        for dtype in ("float64", "float32")
        for i in range(3)
    ]
    wrong = row("numpy", Verdict.DISAGREE, "off by 3 " + "x" * 300, network="mlp", dtype="float64", error=1.0)
    return Report((*rows, wrong), {"platform": "x" * 300, "settings": {"torch": {"x" * 300: "y" * 300}}}).html()


@pytest.fixture(scope="module")
def times() -> str:
    timings = timing("numpy"), timing("a candidate with a long name"), timing("mine", **UNTIMED)
    return Benchmark(timings, {"seed": 0}).html()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None:
            pytest.skip("no Chromium is installed: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def window(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """One of each width, without a network; whatever goes wrong on a page is an error."""
    size = {"width": WIDTHS[request.param], "height": 800}
    context = browser.new_context(viewport=size, color_scheme="dark", offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith("file:") else None)
    yield page
    if folder := os.environ.get("GRADWITNESS_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{request.node.name}.png"), full_page=True)
    context.close()
    assert wrong == []


def load(window: Any, tmp_path: Path, html: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    window.goto(file.as_uri())


def widths(window: Any) -> tuple[int, int]:
    """(what the page takes, what there is)"""
    taken, there = window.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return taken, there


def test_a_cell_opens_below_its_row(window: Any, tmp_path: Path, report: str) -> None:
    load(window, tmp_path, report)
    cell = window.locator("details", has_text="torch.compile, float32: agree").first
    tensor = cell.get_by_text("layers.2.weight", exact=True)
    before = cell.bounding_box()
    assert not tensor.is_visible()
    assert before["width"] < 200
    cell.locator("summary").click()
    assert tensor.is_visible()
    after = cell.bounding_box()
    assert after["y"] > before["y"] + before["height"] / 2
    assert after["width"] > 300
    taken, there = widths(window)
    assert taken <= there
    cell.locator("summary").click()
    closed = cell.bounding_box()
    assert (closed["x"], closed["width"], closed["height"]) == (before["x"], before["width"], before["height"])


def test_what_is_wrong_is_open_and_everything_fits(window: Any, tmp_path: Path, report: str) -> None:
    load(window, tmp_path, report)
    assert window.locator("details[open]").count() == 1
    assert window.get_by_text("off by 3").nth(1).is_visible()
    for summary in window.locator(".record summary").all():
        summary.click()
    taken, there = widths(window)
    assert taken <= there


def test_a_benchmark_fits(window: Any, tmp_path: Path, times: str) -> None:
    load(window, tmp_path, times)
    assert window.get_by_text("Not all timed").is_visible()
    assert window.locator("figure svg").first.bounding_box()["width"] > 300
    taken, there = widths(window)
    assert taken <= there


def test_a_page_that_is_too_wide_would_be_seen(window: Any, tmp_path: Path, times: str) -> None:
    load(window, tmp_path, times.replace("<h1", '<p style="width: 5000px">wide</p><h1'))
    taken, there = widths(window)
    assert taken > there


@pytest.mark.parametrize(
    ("media", "scheme", "is_dark"), [("screen", "light", False), ("screen", "dark", True), ("print", "dark", False)]
)
def test_dark_is_dark_and_pictures_with_it(
    window: Any, tmp_path: Path, times: str, media: str, scheme: str, is_dark: bool
) -> None:
    """The background and a picture's text are on opposite sides; paper is white."""
    window.emulate_media(media=media, color_scheme=scheme)
    load(window, tmp_path, times)
    back, text = window.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('article svg text')).fill]"
    )
    assert (brightness(back) < 100) == is_dark
    assert (brightness(text) < 100) == (not is_dark)


def brightness(color: str) -> float:
    numbers = [float(x) for x in color.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(numbers) / len(numbers)
