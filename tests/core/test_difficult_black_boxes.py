"""What right but difficult losses of one's own must not be accused of, and what must not hide behind them."""

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
    loss,
    rows_of,
    times,
    verdicts,
    verify,
)

RNG = np.random.default_rng(0)


def one(loss: Any, gradient: Any, params: Any, batch: Any = None, **options: Any) -> set[str]:
    candidate = gw.Candidate("numpy", loss, gradient=gradient)
    return verdicts(gw.verify(candidate, params, batch, **options))


@pytest.mark.parametrize("offset", [1e10, 1e6])
def test_a_zero_gradient_does_not_pass_where_differences_are_coarse(offset: float) -> None:
    """A small loss beside a large one: nobody can say, whoever is right."""

    def drowned(p: Any, d: Any) -> Any:
        return offset + 1e-9 * np.sin(p["w"]).sum()

    point = {"w": np.array([0.3, -0.4, 1.0, 2.0])}
    assert one(drowned, lambda p, d: {"w": 0 * p["w"]}, point) == {"inconclusive"}
    assert one(drowned, lambda p, d: {"w": None}, point) == {"inconclusive"}
    assert one(drowned, lambda p, d: {"w": 1e-9 * np.cos(p["w"])}, point) == {"inconclusive"}


def test_a_zero_gradient_does_not_pass_where_every_coordinate_is_at_a_kink() -> None:
    def kinked(p: Any, d: Any) -> Any:
        return (np.maximum(p["w"], 0) + 0.3 * p["w"]).sum()

    assert one(kinked, lambda p, d: {"w": 0 * p["w"]}, {"w": np.zeros(3)}) == {"inconclusive"}


def cross_entropy(p: Any, d: Any) -> Any:
    z = d["x"] @ p["w"].T
    z = z - z.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), d["t"]])


def by_cross_entropy(p: Any, d: Any) -> Gradient:
    z = d["x"] @ p["w"].T
    e = np.exp(z - z.max(1, keepdims=True))
    soft = e / e.sum(1, keepdims=True)
    soft[np.arange(len(z)), d["t"]] -= 1
    return {"w": soft.T @ d["x"] / np.asarray(len(z), z.dtype)}


@pytest.mark.parametrize("scale", [1, 10, 20, 30])
@pytest.mark.parametrize("seed", range(4))
def test_a_confident_softmax_is_not_accused(seed: int, scale: float) -> None:
    """Tiny elements beside large ones, each with the rounding of the large logits."""
    draw = np.random.default_rng(seed).normal
    params, x = {"w": draw(size=(5, 8)) * scale}, draw(size=(16, 8))
    batch = {"x": x, "t": (x @ params["w"].T).argmax(1)}
    for dtype in ("float64", "float32"):
        assert one(cross_entropy, by_cross_entropy, params, batch, dtypes=dtype) <= {"agree", "inconclusive"}
        wrong = one(cross_entropy, lambda p, d: {"w": by_cross_entropy(p, d)["w"] * 1.001}, params, batch, dtypes=dtype)
        assert "agree" not in wrong


def test_a_noisy_witness_excuses_nobody() -> None:
    """A gradient that is noise at half a percent is not sure itself, and leaves a wrong one beside it wrong."""

    def smooth(p: Any, d: Any) -> Any:
        return np.sum(np.sin(p["w"]))

    def chaotic(p: Any, d: Any) -> Gradient:
        noise = np.sin(1e13 * float(p["w"].sum()) + np.arange(p["w"].size))
        return {"w": np.cos(p["w"]) * (1 + 0.005 * noise)}

    point = {"w": np.linspace(0.1, 2.0, 8)}
    candidates = {
        "chaotic": gw.Candidate("numpy", smooth, gradient=chaotic),
        "wrong": gw.Candidate("numpy", smooth, gradient=lambda p, d: {"w": 1.03 * np.cos(p["w"])}),
        "right": gw.Candidate("numpy", smooth, gradient=lambda p, d: {"w": np.cos(p["w"])}),
    }
    for dtype in ("float64", "float32"):
        report = gw.verify(candidates, point, dtypes=dtype)
        assert rows_of(report, "wrong", "w") == {"disagree"}
        assert rows_of(report, "right", "w") == {"agree"}, repr(report)
        assert rows_of(report, "chaotic", "w") <= {"disagree", "inconclusive"}


@pytest.mark.parametrize("error", [1e-6, 1e-5, 3e-5])
def test_the_order_of_candidates_does_not_change_who_is_right(error: float) -> None:
    wrong = gw.Candidate("numpy", loss, gradient=changed("w", lambda g, p, d: g * (1 + error)))
    right = gw.Candidate("numpy", loss, gradient=gradient)
    first = gw.verify({"wrong": wrong, "right": right}, PARAMS, BATCH, dtypes="float32")
    last = gw.verify({"right": right, "wrong": wrong}, PARAMS, BATCH, dtypes="float32")
    for report in (first, last):
        assert rows_of(report, "right", "w") == {"agree"}, repr(report)
    assert rows_of(first, "wrong", "w") == rows_of(last, "wrong", "w")
    if error >= 1e-5:
        assert rows_of(first, "wrong", "w") == {"disagree"}


def test_an_error_as_large_as_the_limit_is_caught() -> None:
    for dtype in ("float64", "float32"):
        (row,) = (r for r in verify(dtypes=dtype).rows if r.parameter == "w")
        assert row.limit is not None
        assert row.reference is not None
        off = changed("w", times(1 + 1.5 * row.limit / row.reference))
        assert verdicts(verify(off, dtypes=dtype), "w") <= {"disagree", "inconclusive"}


def test_a_loss_that_fails_at_a_closer_look_costs_nobody_the_rest() -> None:
    calls = [0]
    params, batch = {"w": RNG.standard_normal(2_000)}, {"x": RNG.standard_normal(2_000)}

    def tiring(p: Any, d: Any) -> Any:
        calls[0] += 1
        if p["w"][77] != params["w"][77] and calls[0] > 200 and np.count_nonzero(p["w"] != params["w"]) == 1:
            raise MemoryError("out of memory")
        return np.sum(np.sin(p["w"]) * d["x"])

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.cos(p["w"]) * d["x"]}

    def off(p: Any, d: Any) -> Gradient:
        g = right(p, d)["w"]
        g[77] *= 1.01
        return {"w": g}

    report = gw.verify(
        {"right": gw.Candidate("numpy", tiring, gradient=right), "off": gw.Candidate("numpy", tiring, gradient=off)},
        params,
        batch,
    )
    assert len(report.rows) == 2
    assert not report


def test_domains_that_a_loss_checks_are_not_its_fault() -> None:
    """A standard deviation of 0.02 beside 2: a neighbour at a tenth of their root mean square is often negative."""

    def likelihood(p: Any, d: Any) -> Any:
        if np.any(p["s"] <= 0):
            raise ValueError("the scale must be positive")
        return np.sum(np.log(p["s"]) + 0.5 * (d["y"] / p["s"]) ** 2)

    def right(p: Any, d: Any) -> Gradient:
        return {"s": 1 / p["s"] - d["y"] ** 2 / p["s"] ** 3}

    point, data = {"s": np.array([0.02, 1.0, 2.0])}, {"y": np.array([0.01, 0.5, -1.0])}
    assert one(likelihood, right, point, data) == {"agree"}
    assert one(likelihood, lambda p, d: {"s": 1.001 * right(p, d)["s"]}, point, data) == {"disagree"}


def test_floats_that_are_labels_or_exponents_are_left_whole() -> None:
    def labelled(p: Any, d: Any) -> Any:
        return np.where(d["y"] == 1, p["w"] ** d["p"], np.cos(p["w"])).sum()

    def right(p: Any, d: Any) -> Gradient:
        return {"w": np.where(d["y"] == 1, d["p"] * p["w"] ** (d["p"] - 1), -np.sin(p["w"]))}

    point = {"w": np.array([-0.3, 0.7, -1.1])}
    for dtype in ("float64", "float32"):
        found = one(labelled, right, point, {"y": np.array([1.0, 0.0, 1.0]), "p": np.array(2.0)}, dtypes=dtype)
        assert found == {"agree"}, dtype


def test_losses_are_held_against_one_that_is_finite() -> None:
    candidates = {
        "nan": gw.Candidate("numpy", lambda p, d: loss(p, d) * np.nan, gradient=gradient),
        "right": gw.Candidate("numpy", loss, gradient=gradient),
        "double": gw.Candidate(
            "numpy", lambda p, d: 2 * loss(p, d), gradient=lambda p, d: {k: 2 * g for k, g in gradient(p, d).items()}
        ),
    }
    report = gw.verify(candidates, PARAMS, BATCH)
    assert rows_of(report, "nan", "w") == rows_of(report, "double", "w") == {"different-loss"}
    assert rows_of(report, "right", "w") == {"agree"}


def test_half_a_precision_in_a_backward_is_seen_in_a_sum_of_many() -> None:
    """The errors of a thousand terms average out; float64 shows them all the same."""
    draw = np.random.default_rng(1).standard_normal
    params, batch = {"w": draw((6, 4))}, {"x": draw((1000, 4)), "y": draw((1000, 6))}

    def squares(p: Any, d: Any) -> Any:
        return np.mean((np.tanh(d["x"] @ p["w"].T) - d["y"]) ** 2)

    def backward(inner: Any) -> Any:
        def by(p: Any, d: Any) -> Gradient:
            h = np.tanh(d["x"] @ p["w"].T)
            g = (2 / h.size * (h - d["y"]) * (1 - h * h)).astype(h.dtype)
            return {"w": g.astype(inner or g.dtype).astype(g.dtype).T @ d["x"]}

        return by

    for dtype in ("float64", "float32"):
        assert one(squares, backward(None), params, batch, dtypes=dtype) == {"agree"}
        assert one(squares, backward(np.float16), params, batch, dtypes=dtype) == {"disagree"}


def test_more_gradients_than_asked_for_are_left_alone() -> None:
    assert verify(wrt="w")


def test_a_complex_loss_is_refused() -> None:
    report = verify(loss=lambda p, d: loss(p, d) + 0j)
    assert verdicts(report) == {"error"}
    assert "one real number" in repr(report)
