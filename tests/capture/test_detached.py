"""A gradient that stops where the loss detaches is no derivative, and the line is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import gradwitness as gw
from tests.capture.trust import verdicts, verified


class Doubling(torch.autograd.Function):
    """Detaches inside: what a rule does there is its own affair."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.detach() * x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return 2 * g[0] * ctx.saved_tensors[0]


def without_gradient(p: Any, b: Any) -> Any:
    with torch.no_grad():
        scale = p["w"].sum()
    return (p["w"] * scale).sum()


def checkpointed(reentrant: bool) -> Callable[[Any, Any], Any]:
    def inside(w: Any) -> Any:
        return (w.detach() * w).sum()

    return lambda p, b: checkpoint(inside, p["w"] * 1, use_reentrant=reentrant)


STOPPED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "detach": (lambda p, b: (p["w"].detach() * p["w"]).sum(), "torch"),
    ".data": (lambda p, b: (p["w"].data * p["w"]).sum(), "torch"),
    "detach in a checkpoint": (checkpointed(False), "torch"),
    "detach in a reentrant checkpoint": (checkpointed(True), "torch"),
    "no_grad": (without_gradient, "torch"),
    "stop_gradient": (lambda p, b: (jax.lax.stop_gradient(p["w"]) * p["w"]).sum(), "jax"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_gradient_that_stops_is_no_derivative_and_the_line_is_named(name: str) -> None:
    loss, backend = STOPPED[name]
    (row,) = verified(loss, backend=backend).rows
    assert str(row.verdict) == "disagree"
    assert row.captured
    assert f"; it stops where the loss detaches: {__file__}:" in row.message


@pytest.mark.parametrize("name", STOPPED)
def test_where_that_is_intended_it_is_said_to_be(name: str) -> None:
    loss, backend = STOPPED[name]
    report = verified(loss, backend=backend, intended={"w": "a target that stands still"})
    assert verdicts(report) == {"intended"}


def test_what_a_rule_detaches_inside_is_its_own_affair() -> None:
    report = verified(lambda p, b: Doubling.apply(p["w"]).sum())  # type: ignore[no-untyped-call]
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


def test_a_softmax_of_jax_stops_at_its_maximum_and_is_right() -> None:
    report = verified(lambda p, b: (jax.nn.softmax(p["w"]) * b["x"]).sum(), batch={"x": np.arange(3.0)}, backend="jax")
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


# What to declare


def padded(p: Any, b: Any) -> Any:
    return (torch.nn.functional.embedding(b["i"], p["w"], padding_idx=1) ** 2).sum()


def test_the_row_of_a_padding_is_named_as_it_is_to_be_declared() -> None:
    point: dict[str, Any] = {
        "params": {"w": np.random.default_rng(0).normal(size=(4, 3))},
        "batch": {"i": np.array([[0, 1], [3, 1]])},
    }
    (row,) = verified(padded, **point).rows
    assert row.verdict == "disagree"
    assert 'if that is meant, say so: intended={"w[1]": "padding"}' in row.message
    assert verdicts(verified(padded, **point, intended={"w[1]": "padding"})) == {"intended"}
    point["batch"] = {"i": np.array([[0, 2], [3, 3]])}  # no padding among them
    (row,) = verified(padded, **point).rows
    assert (row.verdict, row.remarks) == ("agree", ())


def test_a_straight_through_estimator_is_told_what_to_declare_though_its_graph_is_another_loss_nearby() -> None:
    def rounded(p: Any, b: Any) -> Any:
        x = p["w"] * b["x"]
        return ((x + (x.round() - x).detach()) ** 2).sum()

    point: dict[str, Any] = {"params": {"w": np.array([1.2, 2.3, 3.4])}, "batch": {"x": np.array([3.3, 4.4, 5.5])}}
    (row,) = verified(rounded, **point).rows
    assert row.verdict in ("disagree", "inconclusive")
    assert f"; it stops where the loss detaches: {__file__}:" in row.message
    assert 'if that is meant, say so: intended={"w": "detached"}' in row.message
    assert row.not_captured is not None
    assert f"; round is decided at the point ({__file__}:" in row.not_captured
    assert verdicts(verified(rounded, **point, intended={"w": "straight-through"})) == {"intended"}


def test_a_gradient_that_stops_elsewhere_is_not_told_so() -> None:
    def target(p: Any, b: Any) -> Any:
        return ((p["w"] - 2 * p["w"].detach()) ** 2).sum()

    by_hand = gw.Candidate("torch", target, gradient=lambda p, b: {"w": 3 * p["w"]})
    (row,) = gw.verify(by_hand, {"w": np.array([1.2, 2.3, 3.4])}).rows
    assert row.verdict == "disagree"
    assert "intended=" not in row.message
