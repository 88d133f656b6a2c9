"""The page of noise floors: its counts, its tables, and a fault that it counts as an alarm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.floors.__main__ import RESULTS, distribution, drawn, run, written
from benchmarks.floors.measure import Histogram, measured
from gradwitness.report import Row
from gradwitness.verdict import Verdict
from gradwitness_numpy.rules import RULES

NETWORKS = ("article", "mlp")
DRAWN = ("float64", "float32", "bfloat16")


def quiet(text: str) -> None:
    pass


def record(**more: Any) -> dict[str, Any]:
    histograms, cells, alarms = measured(("float64", "float32"), 1, networks=NETWORKS, progress=quiet)
    found = {"versions": {"numpy": "2"}, "seeds": 1, "cells": cells, "alarms": alarms}
    return found | {"histograms": [histogram.as_json() for histogram in histograms]} | more


def row(error: float, floor: float = 1.0, verdict: Verdict = Verdict.AGREE) -> Row:
    return Row(
        "n", "c", "b", "cpu", "float32", verdict, parameter="p", shape=(4, 5), error=error, floor=floor, ratio=0.1
    )


def test_ratios_are_counted_by_tenths_of_a_decade() -> None:
    histogram = Histogram("float32", "b", large=True)
    for error in (0.0, 0.05, 0.2, 0.5, 3.0):
        histogram.add(row(error))
    assert histogram.exact == 1
    assert [histogram.share(a, b) for a, b in ((1e-30, 0.1), (0.1, 1), (1, 10))] == [0.2, 0.4, 0.2]
    assert histogram.largest == 3.0
    assert Histogram.of_json(histogram.as_json()) == histogram


def test_the_tables_are_made_from_what_was_measured(tmp_path: Path) -> None:
    found = record()
    assert found["cells"] == 2 * 2 * 3
    assert found["alarms"] == []
    assert "alarms: none, so their rate is below 22.09%, with 95% confidence" in run(found)
    page = "before\n<!-- table: run -->\n```\nold\n```\n<!-- table: distribution -->\n```\n```\nafter"
    text = written(page, found)
    assert "old" not in text
    assert distribution(found) in text
    drawn(found | {"histograms": [h | {"dtype": d} for h in found["histograms"] for d in DRAWN]}, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_a_wrong_gradient_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RULES["tanh"]
    monkeypatch.setitem(RULES, "tanh", replace(right, vjp=lambda g, step: [-c for c in right.vjp(g, step)]))
    alarms = record()["alarms"]
    assert "mlp seed 0 float64 numpy layers.0.weight: disagree" in alarms
    assert "alarms: " in run(record())


def test_the_page_is_that_of_the_record() -> None:
    import json

    page = Path(__file__).parents[2] / "docs" / "noise-floor.md"
    text = page.read_text(encoding="utf-8")
    assert written(text, json.loads(RESULTS.read_text(encoding="utf-8"))) == text
