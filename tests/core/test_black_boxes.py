"""Losses and gradients written in NumPy, as a researcher writes them: right ones pass, planted faults are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness.errors import GradwitnessError, ProblemError, UnknownName, UnsupportedError
from tests.core.black_boxes import (
    BATCH,
    PARAMS,
    Gradient,
    changed,
    gradient,
    hidden,
    loss,
    verdicts,
    verify,
)


def test_a_right_gradient_agrees() -> None:
    report = verify()
    assert report, repr(report)
    assert len(report.rows) == 6
    assert {row.fd_dtype for row in report.rows} == {"float64"}
    for row in report.rows:
        assert row.limit is not None
        assert row.reference is not None
        assert row.limit < 1e-5 * row.reference, "its detection limit"


def one_off(g: Any, p: Any, d: Any) -> Any:
    g = g.copy()
    g[3, 1] *= 1.01
    return g


FAULTS: dict[str, tuple[str, Callable[[Any, Any, Any], Any], str]] = {
    "twice": ("w", lambda g, p, d: 2 * g, "disagree"),
    "sign": ("w", lambda g, p, d: -g, "disagree"),
    "transposed": ("w", lambda g, p, d: g.T, "disagree"),
    "zero": ("w", lambda g, p, d: 0 * g, "disagree"),
    "one coordinate off by 1%": ("w", one_off, "disagree"),
    "every coordinate off by 1e-4": ("w", lambda g, p, d: g * 1.0001, "disagree"),
    "mean for sum": ("b", lambda g, p, d: g / 7, "disagree"),
    "constant": ("scale", lambda g, p, d: g + 1e-3, "disagree"),
    "NaN": ("w", lambda g, p, d: np.where(g > 0, g, np.nan), "nonfinite"),
    "None": ("w", lambda g, p, d: None, "missing"),
    "of another shape": ("b", lambda g, p, d: g[:3], "error"),
    "random": ("b", lambda g, p, d: g * np.random.default_rng().normal(1, 1e-3), "nondeterministic"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_tensor(fault: str) -> None:
    path, change, verdict = FAULTS[fault]
    report = verify(changed(path, change))
    assert not report
    for row in report.rows:
        assert str(row.verdict) == (verdict if row.parameter == path else "agree"), repr(report)
    assert f"mine {path}: {verdict}" in repr(report)
    assert len(repr(report).splitlines()) <= 12


def test_a_fault_is_found_whatever_the_scale_of_the_loss() -> None:
    for scale in (1e-30, 1e-3, 1e3, 1e12):

        def scaled(p: Any, d: Any, s: float = scale) -> Any:
            return loss(p, d) * s

        def right(p: Any, d: Any, s: float = scale) -> Gradient:
            return {path: g * s for path, g in gradient(p, d).items()}

        def wrong(p: Any, d: Any, s: float = scale) -> Gradient:
            return {**right(p, d), "w": right(p, d)["w"] * 1.001}

        assert verify(right, scaled), scale
        assert verdicts(verify(wrong, scaled), "w") == {"disagree"}, scale


def test_a_stale_activation_is_found() -> None:
    """A cache that the first call fills and that no later one renews."""
    cache: list[Any] = []

    def stale(p: Any, d: Any) -> Gradient:
        if not cache:
            cache.append(p)
        return gradient(cache[0] if cache[0]["w"].dtype == p["w"].dtype else p, d)

    assert "disagree" in verdicts(verify(stale, dtypes="float64"))


def test_a_backward_that_reads_what_the_last_forward_left_is_found() -> None:
    """Each backward after its own forward is right; with another forward between, it is that one's."""
    seen: dict[str, Any] = {}

    def remembering(p: Any, d: Any) -> Any:
        seen["p"] = p
        return loss(p, d)

    def stale(p: Any, d: Any) -> Gradient:
        return gradient(seen["p"], d)

    report = verify(stale, remembering)
    assert verdicts(report) == {"nondeterministic"}
    assert "two forwards before the first backward gave two answers" in repr(report)


def test_a_function_that_remembers_a_batch_of_another_size_is_found() -> None:
    fewest = [len(BATCH["x"])]

    def normalized(p: Any, d: Any) -> Any:
        fewest[0] = min(fewest[0], len(d["x"]))
        return loss(p, d) / fewest[0]

    def by_fewest(p: Any, d: Any) -> Gradient:
        return {path: g / fewest[0] for path, g in gradient(p, d).items()}

    report = verify(by_fewest, normalized, dtypes="float64")
    assert verdicts(report) == {"nondeterministic"}
    assert "the same call before and after a batch of another size gave two losses" in repr(report)


def test_a_function_made_for_one_size_of_batch_is_no_fault() -> None:
    def sized(p: Any, d: Any) -> Any:
        if len(d["x"]) != len(BATCH["x"]):
            raise ValueError("a batch of 7 is what it takes")
        return loss(p, d)

    assert verify(gradient, sized)


def test_accumulation_over_calls_is_found() -> None:
    total = {path: np.zeros(a.shape) for path, a in PARAMS.items()}

    def accumulated(p: Any, d: Any) -> Gradient:
        for path, g in gradient(p, d).items():
            total[path] = total[path] + g
        return dict(total)

    report = verify(accumulated)
    assert verdicts(report) == {"nondeterministic"}
    assert "each call adds the same to its gradient: it accumulates" in repr(report)


@pytest.mark.parametrize(("size", "found"), [(1e-16, {"agree"}), (1e-9, {"nondeterministic"})])
def test_sums_in_no_fixed_order_are_no_fault_and_randomness_is(size: float, found: set[str]) -> None:
    rng = np.random.default_rng(7)

    def jittering(p: Any, d: Any) -> Gradient:
        return {path: g * (1 + size * rng.standard_normal(np.shape(g))) for path, g in gradient(p, d).items()}

    assert verdicts(verify(jittering, dtypes="float64")) == found


@pytest.mark.parametrize("path", ["w", "x"])
def test_modified_inputs_are_an_error_that_says_so(path: str) -> None:
    def modifying(p: Any, d: Any) -> Gradient:
        leaf = {**p, **d}[path]
        leaf += 1
        return gradient(p, d)

    report = verify(modifying)
    assert verdicts(report) == {"error"}
    assert "the function modifies its params or batch" in repr(report)


def test_a_constant_leaf_has_a_zero_gradient() -> None:
    def without_bias(p: Any, d: Any) -> Any:
        return loss({**p, "b": np.zeros(5)}, d)

    def right(p: Any, d: Any) -> Gradient:
        return {**gradient({**p, "b": np.zeros(5)}, d), "b": zero}

    for zero in (np.zeros(5), None):
        assert verify(right, without_bias), zero
    zero = np.full(5, 1e-6)
    assert verdicts(verify(right, without_bias), "b") == {"disagree"}


def test_a_gradient_that_is_zero_by_structure_agrees() -> None:
    """A bias that a subtracted mean takes away again: 1e-17 is computed, and 0 is right."""

    def centred(p: Any, d: Any) -> Any:
        z = d["x"] @ p["w"].T + p["b"]
        return np.mean((z - z.mean(axis=0) - d["y"]) ** 2)

    def right(p: Any, d: Any) -> Gradient:
        z = d["x"] @ p["w"].T + p["b"]
        g = 2 * (z - z.mean(axis=0) - d["y"]) / z.size
        g = g - g.mean(axis=0)
        return {"w": g.T @ d["x"], "b": g.sum(axis=0), "scale": 0.0}

    report = verify(right, centred)
    assert report, repr(report)


def test_beside_a_kink_nothing_is_claimed() -> None:
    at_zero = {"w": np.array([0.0, 1.0, -2.0])}
    for slope in (0.0, 0.5, 1.0):

        def by(p: Any, d: Any, s: float = slope) -> Gradient:
            return {"w": np.where(p["w"] == 0, s, p["w"] > 0)}

        candidate = gw.Candidate("numpy", lambda p, d: np.maximum(p["w"], 0).sum(), gradient=by)
        assert verdicts(gw.verify(candidate, at_zero)) == {"inconclusive"}, slope


def test_value_and_gradient_in_one_call() -> None:
    def both(p: Any, d: Any) -> tuple[Any, Gradient]:
        return loss(p, d), gradient(p, d)

    assert gw.verify(gw.Candidate("numpy", value_and_gradient=both), PARAMS, BATCH)
    assert gw.verify(gw.Candidate("numpy", loss, value_and_gradient=both), PARAMS, BATCH)
    wrong = gw.Candidate("numpy", value_and_gradient=lambda p, d: (loss(p, d), changed("w", one_off)(p, d)))
    assert verdicts(gw.verify(wrong, PARAMS, BATCH), "w") == {"disagree"}


def test_gradients_by_a_leaf_of_the_batch() -> None:
    def by_x(p: Any, d: Any) -> Gradient:
        h, kept = hidden(p, d), d["keep"][:, None]
        g = 2 * kept * (p["scale"] * h - d["y"]) / (kept.sum() * h.shape[1])
        return {"x": (g * p["scale"] * (1 - h * h)) @ p["w"]}

    assert verify(by_x, wrt="x")
    assert not verify(lambda p, d: {"x": by_x(p, d)["x"] * 1.0001}, wrt="x")


# Bad input


@pytest.mark.parametrize(
    ("loss", "error", "says"),
    [
        ({}, GradwitnessError, "no candidates"),
        ({"mine": loss}, GradwitnessError, "'mine' is no backend.*numpy.*Candidate"),
        ({"mine": gw.Candidate("tourch", loss)}, UnknownName, "unknown backend 'tourch'"),
        ({"numpy": 3}, GradwitnessError, "'numpy': expected a loss.*got int"),
        (3, GradwitnessError, "expected a loss.*got int"),
        (None, GradwitnessError, "expected a loss.*got NoneType"),
    ],
)
def test_mistakes_are_one_error_that_helps(loss: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        gw.verify(loss, PARAMS, BATCH)


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (gw.Candidate("numpy", loss), "give the gradient as well"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: None), "must return a gradient for each of w, b, scale"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: p["w"]), "returned ndarray"),
        (gw.Candidate("numpy", loss, gradient=lambda p, d: {"weight": p["w"]}), "it returned weight"),
        (gw.Candidate("numpy", hidden, gradient=gradient), r"one number, got an array of shape \(7, 5\)"),
        (gw.Candidate("numpy", value_and_gradient=gradient), r"must return \(value, gradient\), got dict"),
        (gw.Candidate("numpy", gradient=gradient), "has no loss"),
    ],
)
def test_a_candidate_that_cannot_run_says_why(candidate: gw.Candidate, says: str) -> None:
    report = gw.verify(candidate, PARAMS, BATCH)
    assert not report
    (row,) = report.rows
    assert row.verdict in ("error", "unsupported")
    assert says.replace("\\", "") in row.message


def test_a_loss_in_numpy_runs_on_no_other_backend() -> None:
    with pytest.raises(GradwitnessError, match=r"none could be read:\nmine in float64: numpy: NumPy.* record no ops"):
        gw.verify({"mine": gw.Candidate("numpy", loss, gradient=gradient)}, PARAMS, BATCH, backends="numpy")


def test_dtypes_are_by_default_those_of_the_params() -> None:
    def dtypes(params: Any) -> list[str]:
        report = gw.verify(gw.Candidate("numpy", loss, gradient=gradient), params, BATCH)
        assert report, repr(report)
        return list(dict.fromkeys(row.dtype for row in report.rows))

    assert dtypes(PARAMS) == ["float64"]
    assert dtypes({path: a.astype(np.float32) for path, a in PARAMS.items()}) == ["float32"]
    assert dtypes({**PARAMS, "b": PARAMS["b"].astype(np.float32)}) == ["float64", "float32"]


def test_a_backend_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwitness import registry

    monkeypatch.setattr(registry, "missing_modules", lambda name: ("torch",))
    with pytest.raises(UnsupportedError, match="needs torch, which is not installed"):
        gw.verify({"torch": loss}, PARAMS, BATCH)


def test_a_point_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ProblemError, match="w: 1 of 2 values are NaN"):
        gw.verify(gw.Candidate("numpy", loss, gradient=gradient), {"w": np.array([1.0, np.nan])}, BATCH)
