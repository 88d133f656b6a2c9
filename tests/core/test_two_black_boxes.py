"""Two losses of one's own, held against each other: who is at fault is named, and shared mistakes are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from tests.core.black_boxes import (
    BATCH,
    PARAMS,
    Gradient,
    changed,
    gradient,
    hidden,
    loss,
    rows_of,
    verdicts,
    verify,
)


def against(other: Any, **options: Any) -> gw.Report:
    right = gw.Candidate("numpy", loss, gradient=gradient)
    return gw.verify({"right": right, "other": other}, PARAMS, BATCH, **({"dtypes": ("float64", "float32")} | options))


def test_one_coordinate_among_many_is_found_by_comparison_and_the_one_at_fault_is_named() -> None:
    """Differences are taken at 12 of 10,000 coordinates; where two gradients differ, they are taken again."""
    rng = np.random.default_rng(3)
    params, batch = {"w": rng.standard_normal(10_000)}, {"x": rng.standard_normal(10_000)}

    def smooth(p: Any, d: Any) -> Any:
        return np.sum(np.sin(p["w"]) * d["x"])

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.cos(p["w"]) * d["x"]}

    def wrong(p: Any, d: Any) -> Gradient:
        g = right(p, d)["w"]
        g[7_123] *= 1.01
        return {"w": g}

    for order in (("right", "wrong"), ("wrong", "right")):
        gradients = {"right": right, "wrong": wrong}
        candidates = {label: gw.Candidate("numpy", smooth, gradient=gradients[label]) for label in order}
        report = gw.verify(candidates, params, batch)
        assert {r.candidate: str(r.verdict) for r in report.rows} == {"right": "agree", "wrong": "disagree"}
        assert "finite differences refute it at [7123]" in repr(report)


@pytest.mark.parametrize(
    "other",
    [
        lambda p, d: np.mean((p["scale"] * hidden(p, d) - d["y"]) ** 2),  # the mask left out
        lambda p, d: np.sum(((p["scale"] * hidden(p, d) - d["y"])[d["keep"]]) ** 2) / 24,  # another denominator
        lambda p, d: loss(p, d) + 1e-2 * (np.sum(p["b"] ** 2) - np.sum(PARAMS["b"] ** 2)),  # equal at the point
        lambda p, d: loss(p, d) * np.nan,
    ],
)
def test_another_loss_is_said_before_any_gradient_is_judged(other: Any) -> None:
    report = against(gw.Candidate("numpy", other, gradient=gradient))
    for parameter in PARAMS:
        assert rows_of(report, "right", parameter) == {"agree"}
        assert rows_of(report, "other", parameter) == {"different-loss"}
    assert "of 'right'" in repr(report)


def test_where_differences_cannot_tell_both_are_inconclusive() -> None:
    """At a kink one says 0 and the other 1: neither is refuted."""

    def kinked(p: Any, d: Any) -> Any:
        return np.maximum(p["w"], 0).sum()

    def by(slope: float) -> gw.Candidate:
        return gw.Candidate("numpy", kinked, gradient=lambda p, d: {"w": np.where(p["w"] == 0, slope, p["w"] > 0)})

    report = gw.verify({"zero": by(0.0), "one": by(1.0)}, {"w": np.array([0.0, 1.0, -2.0])})
    assert verdicts(report) == {"inconclusive"}


def test_two_that_share_a_mistake_are_both_wrong() -> None:
    """Votes are not counted."""
    wrong = gw.Candidate("numpy", loss, gradient=changed("w", lambda g, p, d: g * 1.001))
    report = gw.verify(
        {"one": wrong, "two": wrong, "right": gw.Candidate("numpy", loss, gradient=gradient)}, PARAMS, BATCH
    )
    assert rows_of(report, "one", "w") == rows_of(report, "two", "w") == {"disagree"}
    assert rows_of(report, "right", "w") == {"agree"}


def test_a_failure_costs_only_its_own_rows() -> None:
    def raising(p: Any, d: Any) -> Any:
        raise RuntimeError("out of luck")

    report = against(gw.Candidate("numpy", raising, gradient=gradient))
    assert {str(r.verdict) for r in report.rows if r.candidate == "right"} == {"agree"}
    place = f"tests/core/test_two_black_boxes.py:{raising.__code__.co_firstlineno + 1}, raising"
    assert [r.message for r in report.rows if r.candidate == "other"] == [f"RuntimeError: out of luck (at {place})"] * 2


def test_lower_precision_inside_is_seen_or_said_to_be_beyond_judgement() -> None:
    """float16 somewhere in a float32 backward is an error of 1e-4; in float64 even float32 is one."""
    for dtype, inner in (("float32", np.float16), ("float64", np.float32)):

        def coarse(p: Any, d: Any, inner: Any = inner) -> Gradient:
            return {path: np.asarray(g).astype(inner).astype(float) for path, g in gradient(p, d).items()}

        assert verdicts(verify(coarse, dtypes=dtype)) == {"disagree"}, dtype


def test_a_loss_that_computes_in_less_than_it_is_called_in_is_no_false_alarm() -> None:
    """float32 inside a call in float64: the noise of the loss is measured, and the differences stand aside."""

    def narrow(tree: Any) -> Any:
        return {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in tree.items()}

    report = verify(lambda p, d: gradient(narrow(p), narrow(d)), lambda p, d: loss(narrow(p), narrow(d)))
    assert verdicts(report) <= {"agree", "inconclusive"}, repr(report)
    assert all(row.fd_bound is not None and row.fd_bound > 1e-6 for row in report.rows)


def test_a_loss_of_one_dtype_is_differenced_in_it_and_that_is_said() -> None:
    def only_float32(p: Any, d: Any) -> Any:
        if p["w"].dtype != np.float32:
            raise TypeError("float32 only")
        return loss(p, d)

    report = verify(gradient, only_float32, dtypes="float32")
    assert {row.fd_dtype for row in report.rows} == {"float32"}
    assert verdicts(report) <= {"agree", "inconclusive"}
    assert all(
        "differenced in float32, as the loss does not run in float64 (TypeError" in r.message for r in report.rows
    )
    wrong = verify(changed("w", lambda g, p, d: 1.2 * g), only_float32, dtypes="float32")
    assert verdicts(wrong, "w") == {"disagree"}


def test_nothing_agrees_that_could_not_be_held_against_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that raises as it is asked once more takes the evidence of all, and no verdict stays that it might have
    changed."""

    def failing(*arguments: Any) -> None:
        raise RuntimeError("asked once too often")

    monkeypatch.setattr("gradwitness.run.peers.Peers.compare", failing)
    square = gw.Candidate("numpy", lambda p, b: (p["w"] ** 2).sum(), gradient=lambda p, b: {"w": 2 * p["w"]})
    report = gw.verify({"one": square, "other": square}, {"w": np.array([1.0, 2.0])})
    assert {str(row.verdict) for row in report.rows} == {"inconclusive"}
    assert (
        report.rows[0].message
        == "could not be held against the others: RuntimeError: asked once too often (at "
        + (report.rows[0].message.partition("(at ")[2])
    )
