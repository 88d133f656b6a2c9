"""Pages of reports and of benchmarks: whole, by themselves, small, and with every verdict in them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import matplotlib
import pytest
from click.testing import CliRunner

import gradwitness.page.document
from gradwitness import Benchmark, GradwitnessError, Report, Row, Timing, Verdict, claims
from gradwitness.claims.measuring import Measured
from gradwitness.cli import cli
from gradwitness.report import Address
from gradwitness.report.page.marks import MARKS
from gradwitness.timing.records import Grown
from gradwitness.timing.statistics import Interval
from tests.page.checked import checked, text_of

EVIL = '<script>alert("x")</script></details></table>&amp;$x_1${{ 7 * 7 }}\x00\x1b[31m\u202e\ud800\u4e16'
SHOWN = '<script>alert("x")</script></details></table>&amp;$x_1${{ 7 * 7 }}\\x00\\x1b[31m\\u202e\\ud800\u4e16'
MADE = {"command": "gradwitness verify --html page.html"}
MEGABYTE = 1e6


def row(candidate: str = "torch", verdict: Verdict = Verdict.AGREE, message: str = "", **more: Any) -> Row:
    where: dict[str, Any] = {"network": "net", "dtype": "float32", "device": "cpu", "parameter": "w"} | more
    network, dtype, device = (where.pop(name) for name in ("network", "dtype", "device"))
    facts: dict[str, Any] = {
        "error": None,
        "floor": 1e-7,
        "reference": 2.0,
        "shape": (2, 3),
        "ratio": 0.1,
        "limit": 1e-6,
    } | where
    return Row(network, candidate, "torch", device, dtype, verdict, message, **facts)


ERROR: dict[str, Any] = {"error": 2e-8}  # which takes pictures, and so some time


def page(*rows: Row, **more: Any) -> Element:
    return checked(Report(rows, **{"environment": {"seed": 0}} | more).html(made=MADE))


def found(root: Element, path: str) -> list[str]:
    return [text_of(element) for element in root.iterfind(path)]


ONE_OF_EACH = tuple(
    row(f"mine {i}", verdict, f"reason {i}", parameter=None if verdict is Verdict.ERROR else f"layer.{i}")
    for i, verdict in enumerate(Verdict)
)


def test_every_verdict_is_in_it_with_its_symbol_and_its_meaning() -> None:
    root = page(*ONE_OF_EACH)
    for i, verdict in enumerate(Verdict):
        (cell,) = (cell for cell in root.iter("details") if f"mine {i}, float32: {verdict}" in text_of(cell))
        assert text_of(cell).startswith(MARKS[verdict].symbol)
        assert f"reason {i}" in text_of(cell)
        if verdict is not Verdict.ERROR:
            assert f"{MARKS[verdict].symbol} {verdict}" in found(cell, ".//tbody/tr/td[9]")
            assert f"layer.{i}" in found(cell, ".//tbody/tr/td[1]")
        assert f"{MARKS[verdict].symbol} {verdict}" in found(root, ".//dl[@class='legend']//dt")
    assert len({mark.symbol for mark in MARKS.values()}) == len(Verdict)


def test_a_figure_of_every_tensor_is_in_it() -> None:
    root = page(row(error=3.2e-7, ratio=0.345, ulps=2.5, fd_error=4e-6, fd_bound=8e-6, setup_seconds=1.5))
    cells = found(root, ".//tbody/tr/td")
    assert cells == ["w", "2 × 3", "3.2 floors", "34%", "5.0e-08", "2.5", "5.0e-07", "2.0e-06 ± 4.0e-06", "✓ agree"]
    assert "made ready in 1.5 s" in found(root, ".//ul[@class='facts']/li")


def test_what_fails_comes_first_and_is_open() -> None:
    wrong = row("mine", Verdict.DISAGREE, "off by 3")
    root = page(row(**ERROR), wrong)
    sections = [section.get("id") for section in root.iter("section")]
    assert sections == ["failures", "verdicts", "errors", "environment"]
    assert found(root, ".//h1") == ["✗ Not verified"]
    assert found(root, ".//section[@id='failures']//li") == ["net float32 mine w: disagree: off by 3"]
    assert [text_of(cell)[:1] for cell in root.iter("details") if cell.get("open") is not None] == ["✗"]
    assert found(page(row(), replace(wrong, candidate="torch", parameter="b")), ".//tbody/tr/td[1]")[0] == "b"
    assert found(page(row()), ".//h1") == ["✓ Verified"]


def test_what_is_allowed_fails_nowhere() -> None:
    root = page(row(**ERROR), row("mine", Verdict.INCONCLUSIVE, "coarse", **ERROR), allow=("inconclusive",))
    assert found(root, ".//h1") == ["✓ Verified"]
    assert [cell for cell in root.iter("details") if cell.get("open") is not None] == []
    assert "✕ not accepted" not in found(root, ".//ul[@class='series']/li")


def test_of_many_failures_none_is_open_and_all_are_there() -> None:
    rows = [row(f"c{i}", Verdict.DISAGREE, f"off at {i}") for i in range(40)]
    root = page(*rows)
    assert [cell for cell in root.iter("details") if cell.get("open") is not None] == []
    assert len(found(root, ".//section[@id='failures']//li")) == 40


@pytest.mark.parametrize(
    "field", ["network", "candidate", "parameter", "message", "refused", "against", "remarks", "custom"]
)
def test_text_of_others_is_text(field: str) -> None:
    values: dict[str, Any] = {"remarks": (EVIL,), "custom": {EVIL: True}}
    drawn = ERROR if field in ("network", "candidate") else {}
    wrong = replace(row(verdict=Verdict.DISAGREE, **drawn), **{field: values.get(field, EVIL)})
    text = Report((row(), wrong), {"seed": EVIL, EVIL: {EVIL: [EVIL]}}, require=(EVIL,)).html(made={EVIL: EVIL})
    text.encode("utf-8")
    root = checked(text)
    assert SHOWN in " ".join(root.itertext())
    sections = {element.get("id") for element in root.iter("section")}
    assert sections - {"remarks", "errors"} == {"failures", "verdicts", "environment"}


@pytest.mark.parametrize(
    "rows", [(), (row(parameter=None, verdict=Verdict.ERROR, error=None, floor=None, shape=None),)]
)
def test_without_a_gradient_there_is_a_page_too(rows: tuple[Row, ...]) -> None:
    root = page(*rows)
    assert not root.findall(".//figure")
    assert found(root, ".//h1") == ["✗ Not verified"]


FIGURES: dict[str, dict[str, Any]] = {
    "zero": {"error": 0.0},
    "zero floor": {"floor": 0.0},
    "infinite": {"error": float("inf"), "ratio": float("inf")},
    "nan": {"error": float("nan"), "floor": float("nan"), "ratio": float("nan"), "limit": float("nan")},
    "no reference": {"reference": None},
    "zero gradient": {"reference": 0.0},
    "far": {"error": 1e290, "floor": 1e-300, "ratio": 1e300},
}


@pytest.mark.parametrize("name", FIGURES)
def test_whatever_the_figures_there_is_a_page(name: str) -> None:
    page(row(**ERROR), row("other", **ERROR | FIGURES[name]))


def test_pictures_have_a_mark_for_each_error_and_no_color_of_their_own() -> None:
    rows = [row(f"c{i}", error=1e-8 * (i + 1), dtype=dtype) for i in range(9) for dtype in ("float64", "float32")]
    root = page(*rows, row("wrong", Verdict.DISAGREE, **ERROR))
    pictures = root.findall(".//{http://www.w3.org/2000/svg}svg")
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.get("role") == "img"
        assert "floor" in (picture.get("aria-label") or "")
        styles = " ".join(element.get("style", "") for element in picture.iter())
        assert re.findall(r"#[0-9a-fA-F]{3,8}\b", styles) == []
        marks = [use for use in picture.iter("{http://www.w3.org/2000/svg}use") if _is_a_mark(picture, use)]
        assert len(marks) >= len(rows) + 1
    legend = found(root, ".//ul[@class='series']/li")
    colors = [symbol.get("style") for symbol in root.iterfind(".//ul[@class='series']/li/b")]
    assert legend[-1] == "✕ not accepted"
    assert len({(line[0], color) for line, color in zip(legend, colors, strict=True)}) == len(legend) == 11


def _is_a_mark(picture: Element, use: Element) -> bool:
    """And no tick, which is a straight line."""
    (path,) = picture.findall(f".//*[@id='{(use.get('href') or '')[1:]}']")
    return len(path.get("d", "")) > len("M 0 0 L 0 3.5")


def test_a_page_is_the_same_each_time_and_matplotlib_is_left_alone() -> None:
    report = Report((row(**ERROR), row("b", **ERROR)), {"seed": 0})
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "path"}):
        first = report.html()
    assert first == report.html()
    assert dict(matplotlib.rcParams) == before


def test_a_full_run_is_below_three_megabytes() -> None:
    figures: dict[str, Any] = {"fd_error": 1e-9, "fd_bound": 1e-9, "ulps": 1.5}
    rows = [
        row(f"backend {b}", network=f"n {n}", dtype=dtype, parameter=f"layers.{p}.weight", error=1e-9 * p, **figures)
        for n in range(14)
        for b in range(4)
        for dtype in ("float64", "float32")
        for p in range(25)
    ]
    assert len(rows) == 2800
    assert len(Report(tuple(rows), {}).html().encode()) < 3 * MEGABYTE


# Colors


def colors() -> list[dict[str, str]]:
    """The variables of style.css, light and dark."""
    style = Path(gradwitness.page.document.__file__).with_name("style.css").read_text(encoding="utf-8")
    return [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]


def contrast(one: str, other: str) -> float:
    """Between two colors, from 1 to 21 (Web Content Accessibility Guidelines 2.2, "contrast ratio")."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_their_ground(scheme: int) -> None:
    """As level AA of these guidelines asks: 4.5 for text, 3 for what is drawn."""
    known = colors()[scheme]
    for kind in ("good", "bad", "doubt", "idle"):
        for ground in ("paper", "raised", f"{kind}-back"):
            assert contrast(known[kind], known[ground]) >= 4.5, (kind, ground)
            assert contrast(known["muted"], known[ground]) >= 4.5, ground
            assert contrast(known["ink"], known[ground]) >= 7, ground
    for number in range(1, 9):
        assert contrast(known[f"series-{number}"], known["paper"]) >= 3, number
    assert contrast("#777777", "#ffffff") < 4.5 < contrast("#767676", "#ffffff")  # the greys on either side of it


# Benchmarks


def timing(candidate: str, network: str = "mlp", **more: Any) -> Timing:
    where = Address(network, candidate, "torch", "cpu", "float32")
    interval = Interval(1e-3, 0.9e-3, 1.2e-3)
    times = {"forward": interval, "backward": interval, "forward_backward": interval}
    ratios = dict.fromkeys(times, Interval(1.5, 1.4, float("inf")))
    facts: dict[str, Any] = {
        "verdict": "agree",
        "times": times,
        "ratios": ratios,
        "setup_seconds": 0.5,
        "memory": 2**20,
    } | more
    return Timing(where, 4096, threads=2, **facts)


UNTIMED: dict[str, Any] = {"verdict": "disagree", "why": "mlp float32 w: disagree: off by 2", "times": {}, "ratios": {}}


def bench(*timings: Timing) -> Element:
    return checked(Benchmark(timings, {"seed": 0}).html(made=MADE))


def test_times_and_ratios_have_their_intervals() -> None:
    root = bench(timing("numpy"), timing("torch"), timing("numpy", "lstm"), timing("jax", "lstm"))
    assert found(root, ".//h1") == ["✓ Timed"]
    assert [section.get("id") for section in root.iter("section")] == ["ratios", "times", "environment"]
    assert found(root, ".//article/h3") == [f"{n}, 4,096 parameters, float32, cpu, 2 threads" for n in ("mlp", "lstm")]
    (first, *_) = root.iterfind(".//tbody/tr")
    assert found(first, "td")[:5] == ["numpy", *["1 ms +- 15%"] * 3, "1.50 (1.40 to inf)"]
    ratios, *bars = root.findall(".//{http://www.w3.org/2000/svg}svg")
    assert "mlp: numpy 1.50, torch 1.50" in (ratios.get("aria-label") or "")
    assert len(bars) == 2
    said = [text.text for text in bars[0].iter("{http://www.w3.org/2000/svg}text")]
    assert (said.count("1 ms"), said.count("1.50×")) == (6, 6)


def test_what_was_not_timed_shows_its_verdict_instead() -> None:
    root = bench(timing("numpy"), timing("mine", **UNTIMED), timing("hand", alone="runs its own forward", times={}))
    assert found(root, ".//h1") == ["✗ Not all timed"]
    assert found(root, ".//section[@id='untimed']//li") == ["mine was not timed: mlp float32 w: disagree: off by 2"]
    (line,) = (line for line in root.iterfind(".//tbody/tr") if text_of(line).startswith("mine"))
    assert found(line, "td") == ["mine", "disagree"]
    picture = root.findall(".//article//{http://www.w3.org/2000/svg}svg")[0]
    said = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert said.count("disagree: not timed") == 3
    assert "hand has no backward alone: runs its own forward" in found(root, ".//article/p")


def test_growth_is_drawn_and_told() -> None:
    def at(size: int, candidate: str, seconds: float) -> Timing:
        times = {"forward_backward": Interval(seconds, 0.9 * seconds, 1.1 * seconds)}
        return timing(candidate, times=times, ratios={}, grown=Grown("mlp", "width", size), memory=size * 2**10)

    root = bench(
        *(at(size, *one) for size in (16, 32, 64) for one in (("numpy", 1e-6 * size**2), ("jax", 1e-5 * size)))
    )
    assert [section.get("id") for section in root.iter("section")] == ["growth", "environment"]
    assert found(root, ".//article/h3") == ["mlp by width: forward + backward, float32, cpu"]
    drawn = [picture.get("aria-label") or "" for picture in root.findall(".//{http://www.w3.org/2000/svg}svg")]
    assert [text.split(":")[0] for text in drawn] == ["time of mlp by width", "memory of mlp by width"]
    assert "numpy at 64 4.1 ms" in drawn[0]
    assert "jax at 16 16 KiB" in drawn[1]
    assert any(note.startswith("numpy: time grows as size^2.00") for note in found(root, ".//article/p"))
    assert found(root, ".//ul[@class='series']/li") == ["○ numpy", "□ jax"]


def test_text_in_a_benchmark_is_text_and_one_alone_has_no_ratios() -> None:
    root = bench(timing(EVIL, EVIL, why=EVIL, verdict=EVIL, times={}, ratios={}))
    assert SHOWN in " ".join(root.itertext())
    assert "ratios" not in [section.get("id") for section in root.iter("section")]
    bench()


def test_claims_stand_beside_what_was_measured() -> None:
    figures = [Measured(what, Interval(x, 0.9 * x, 1.1 * x)) for what, x in (("mlp", 0.4), (EVIL, 2.0))]
    measured = [claims.Tested(claims.CLAIMS[number], tuple(figures)) for number in (0, 6)]
    both = [*measured, claims.Tested(claims.CLAIMS[1], (), "no torch")]
    root = checked(claims.claims_page(both, {"seed": 0}, MADE))
    assert found(root, ".//h1") == ["– Not all measured"]
    assert found(root, ".//ul[@class='counts']/li") == ["2 ✓ as claimed", "2 ≠ otherwise", "1 – not measured"]
    assert found(root, ".//tbody/tr/td[3]") == ["✓ as claimed", "≠ more", "≠ less", "✓ as claimed"]
    assert f"source: {claims.CLAIMS[0].source}" in found(root, ".//article/p")
    assert "not measured: no torch" in found(root, ".//article/p")
    assert len(root.findall(".//{http://www.w3.org/2000/svg}svg")) == 2
    assert SHOWN in " ".join(root.itertext())


# What checks them would find


FAULTS = {
    "an element that is not closed": "<p><span>",
    "one closed twice": "<div></div></div>",
    "an id given twice": '<p id="a"></p><p id="a"></p>',
    "a script": "<script></script>",
    "a handler": '<p onclick="f()"></p>',
    "an image from elsewhere": '<img src="https://example.org/a.png">',
    "a link to elsewhere": '<a href="https://example.org">a</a>',
    "a link to nowhere": '<a href="#nowhere">a</a>',
    "a style from elsewhere": "<style>@import 'a.css'</style>",
    "a font from elsewhere": "<style>p { background: url(a.png) }</style>",
    "a picture that refers elsewhere": '<svg><use href="a.svg#b"/></svg>',
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_would_be_found(name: str) -> None:
    whole = "<!doctype html><html><head><title>t</title></head><body>{}</body></html>"
    checked(whole.format("<p>fine</p>"))
    with pytest.raises((AssertionError, checked.__globals__["html5lib"].html5parser.ParseError)):
        checked(whole.format(FAULTS[name]))


# The command


def test_the_command_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    arguments = ["verify", "article", "--backend", "numpy", "--html", str(file)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    root = checked(file.read_text(encoding="utf-8"))
    assert len(found(root, ".//tbody/tr")) == 8
    assert f"gradwitness {' '.join(arguments)}" in found(root, ".//p[@class='made']/code")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_it_is_refused_before_the_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli, [command, "article", "--html", str(tmp_path / "no" / "page.html")])
    assert result.exit_code == 2
    assert f"the folder {tmp_path / 'no'} does not exist" in result.output
    result = CliRunner().invoke(cli, [command, "article", "--html", "-", "--json", "-"])
    assert result.exit_code == 2
    assert "only one of them can go to standard output" in result.output
    monkeypatch.setattr(gradwitness.page.document, "MODULES", ("jinja2", "no_such_module"))
    result = CliRunner().invoke(cli, [command, "article", "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == (
        'Error: --html needs no_such_module, which is not installed: pip install "gradwitness[html]"'
    )
    with pytest.raises(GradwitnessError, match="a page needs no_such_module"):
        Report((row(),), {}).html()
