"""Losses that return arrays, contracted with weights: drawn at random, or given."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops
from gradwitness.errors import GradwitnessError, NotOneNumberError, ProblemError, TraceError

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(4)}
BATCH = {"x": RNG.standard_normal((8, 3))}
WEIGHTS = RNG.standard_normal((8, 4))


def scores(p: Any, d: Any) -> Any:
    return d["x"] @ p["w"].T + p["b"]


def softmax(p: Any, d: Any) -> Any:
    e = np.exp(scores(p, d) - scores(p, d).max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def pullback(p: Any, d: Any, cotangent: Any) -> dict[str, Any]:
    y = softmax(p, d)
    g = y * (cotangent - (y * cotangent).sum(axis=-1, keepdims=True))
    return {"w": g.T @ d["x"], "b": g.sum(axis=0)}


def zeros(p: Any, d: Any, cotangent: Any) -> dict[str, Any]:
    return {path: 0 * x for path, x in p.items()}


def in_torch(p: Any, d: Any) -> Any:
    return torch.softmax(scores(p, d), -1)


CANDIDATES: dict[str, Any] = {
    "torch": in_torch,
    "jax": lambda p, d: jax.nn.softmax(scores(p, d), -1),
    "mine": gw.Candidate("numpy", softmax, gradient=pullback),
    "together": gw.Candidate("numpy", value_and_gradient=lambda p, d, c: (softmax(p, d), pullback(p, d, c))),
}


@pytest.mark.parametrize("cotangent", ["random", WEIGHTS, torch.tensor(WEIGHTS)], ids=["random", "numpy", "torch"])
def test_arrays_are_weighted(cotangent: Any) -> None:
    report = gw.verify(CANDIDATES, PARAMS, BATCH, cotangent=cotangent, dtypes=("float64", "float32"))
    assert report, repr(report)
    assert len(report.rows) == 2 * 4 * 2


SEVERAL: dict[str, Any] = {
    "torch": lambda p, d: (in_torch(p, d), scores(p, d).sum()),
    "jax": lambda p, d: (jax.nn.softmax(scores(p, d), -1), scores(p, d).sum()),
}


def of_both(p: Any, d: Any, cotangent: Any, factor: float = 1.0) -> dict[str, Any]:
    found, ones = pullback(p, d, cotangent[0]), factor * cotangent[1] * np.ones((8, 4))
    return {"w": found["w"] + ones.T @ d["x"], "b": found["b"] + ones.sum(axis=0)}


@pytest.mark.parametrize("cotangent", ["random", (WEIGHTS, 0.7)], ids=["random", "given"])
def test_a_loss_may_return_several_arrays(cotangent: Any) -> None:
    mine = gw.Candidate("numpy", lambda p, d: (softmax(p, d), scores(p, d).sum()), gradient=of_both)
    report = gw.verify({**SEVERAL, "mine": mine}, PARAMS, BATCH, cotangent=cotangent, dtypes=("float64", "float32"))
    assert report, repr(report)
    assert len(report.rows) == 2 * 3 * 2


def test_a_cotangent_that_a_gradient_forgets_is_missed() -> None:
    forgetful = gw.Candidate(
        "numpy",
        lambda p, d: (softmax(p, d), scores(p, d).sum()),
        gradient=lambda p, d, c: of_both(p, d, c, factor=0.0),
    )
    report = gw.verify({**SEVERAL, "mine": forgetful}, PARAMS, BATCH, cotangent="random", dtypes="float64")
    assert {str(row.verdict) for row in report.rows if row.candidate == "mine"} == {"disagree"}


@pytest.mark.parametrize("path", ["eager", "torch.func.grad", "backward", "torch.compile(grad)"])
def test_several_arrays_in_a_dict_on_the_paths_of_torch(path: str) -> None:
    def loss(p: Any, d: Any) -> Any:
        return {"scores": scores(p, d), "more": [in_torch(p, d)]}

    report = gw.verify({"t": gw.Candidate("torch", loss)}, PARAMS, BATCH, cotangent="random", paths=[path])
    assert report, repr(report)


def test_a_traced_loss_may_return_several_arrays() -> None:
    def loss(p: Any, d: Any) -> Any:
        hidden = ops.linear(d["x"], p["w"], p["b"])
        return ops.softmax(hidden, axis=-1), {"sum": ops.sum(hidden)}

    assert gw.verify(loss, PARAMS, BATCH, cotangent="random", backends=("numpy", "torch"), dtypes="float64")


def test_without_weights_several_arrays_are_an_error_that_shows_their_shapes() -> None:
    (row,) = gw.verify({"torch": SEVERAL["torch"]}, PARAMS, BATCH, dtypes="float64").rows
    assert "got several arrays, of shapes [(8, 4), ()]: " in row.message
    assert 'verify(cotangent="random")' in row.message


@pytest.mark.parametrize(
    ("cotangent", "says"),
    [
        ((WEIGHTS,), "the loss returned cotangent.1 as well, for which there is no cotangent"),
        ((WEIGHTS, 1.0, 2.0), "the cotangent.2 has shape (), the loss returned nothing there"),
        ((WEIGHTS.T, 1.0), "the cotangent.0 has shape (4, 8), the loss returned an array of shape (8, 4)"),
    ],
)
def test_weights_that_are_nested_otherwise_are_an_error(cotangent: Any, says: str) -> None:
    (row,) = gw.verify({"torch": SEVERAL["torch"]}, PARAMS, BATCH, cotangent=cotangent, dtypes="float64").rows
    assert says in row.message


def test_a_zero_backward_of_a_softmax_is_found() -> None:
    """Weights of ones would let it pass: a softmax adds up to 1."""
    wrong = gw.Candidate("numpy", softmax, gradient=zeros)
    by_ones = gw.verify({"zero": wrong}, PARAMS, BATCH, cotangent=np.ones((8, 4)))
    assert not {str(row.verdict) for row in by_ones.rows} & {"disagree"}
    report = gw.verify({"zero": wrong, "torch": in_torch}, PARAMS, BATCH, cotangent="random")
    assert {str(row.verdict) for row in report.rows if row.candidate == "zero"} == {"disagree"}
    assert {str(row.verdict) for row in report.rows if row.candidate == "torch"} == {"agree"}


def test_a_traced_loss_may_return_an_array() -> None:
    def loss(p: Any, d: Any) -> Any:
        return ops.softmax(ops.linear(d["x"], p["w"], p["b"]), axis=-1)

    for cotangent in ("random", WEIGHTS):
        assert gw.verify(loss, PARAMS, BATCH, cotangent=cotangent, backends=("numpy", "torch", "jax"))
    with pytest.raises(NotOneNumberError, match=r"got an array of shape \(8, 4\).*cotangent=\"random\""):
        gw.verify(loss, PARAMS, BATCH)
    with pytest.raises(TraceError, match=r"the cotangent has shape \(4,\), the loss returned"):
        gw.verify(loss, PARAMS, BATCH, cotangent=np.ones(4))


def test_the_draw_is_that_of_the_seed() -> None:
    def size(seed: int) -> float | None:
        return gw.verify({"torch": in_torch}, PARAMS, BATCH, cotangent="random", seed=seed).rows[0].reference

    assert size(0) == size(0)
    assert size(0) != size(1)


def test_one_number_needs_no_weights() -> None:
    assert gw.verify({"torch": lambda p, d: in_torch(p, d)[0, 0]}, PARAMS, BATCH, cotangent="random")


def test_without_weights_an_array_is_an_error_that_says_so() -> None:
    report = gw.verify(CANDIDATES, PARAMS, BATCH)
    assert {str(row.verdict) for row in report.rows} == {"error"}
    for row in report.rows[:3]:
        assert 'an array of shape (8, 4): end it in a mean or a sum, or give verify(cotangent="random")' in row.message


def test_weights_of_another_shape_are_an_error_of_the_candidate() -> None:
    other = gw.Candidate("torch", lambda p, d: in_torch(p, d)[:4])
    report = gw.verify({"torch": in_torch, "half": other}, PARAMS, BATCH, cotangent="random")
    assert [str(row.verdict) for row in report.rows] == ["agree", "agree", "error"]
    assert "the cotangent has shape (8, 4), the loss returned an array of shape (4, 4)" in report.rows[-1].message
    scalar = gw.Candidate("torch", lambda p, d: float(in_torch(p, d).sum()))
    assert "returned a float" in gw.verify({"it": scalar}, PARAMS, BATCH, cotangent=WEIGHTS).rows[0].message


def test_a_leaf_of_that_name_is_a_leaf_where_there_are_no_weights() -> None:
    """With moved points, other dtypes and fewer examples."""
    batch = {"x": BATCH["x"], "cotangent": WEIGHTS}

    def summed(p: Any, d: Any) -> Any:
        return (in_torch(p, d) * d["cotangent"]).sum()

    def traced(p: Any, d: Any) -> Any:
        return (ops.softmax(ops.linear(d["x"], p["w"], p["b"]), axis=-1) * d["cotangent"]).sum()

    assert gw.verify({"torch": summed}, PARAMS, batch, dtypes=("float64", "float32"))
    assert gw.verify(traced, PARAMS, batch, backends="numpy", seconds=1e-3)


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(GradwitnessError, match="must be \"random\" or an array, got 'ones'"):
        gw.verify(CANDIDATES, PARAMS, BATCH, cotangent="ones")
    with pytest.raises(ProblemError, match="a leaf has the path 'cotangent'"):
        gw.verify(CANDIDATES, PARAMS, BATCH | {"cotangent": np.ones(3)}, cotangent=WEIGHTS)
    with pytest.raises(GradwitnessError, match="a Problem has cotangent of its own"):
        gw.verify(gw.Problem("p", lambda p, d: p["w"].sum(), PARAMS, {}), cotangent=WEIGHTS)
