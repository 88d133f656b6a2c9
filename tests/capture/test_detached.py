"""A gradient that stops where the loss detaches is no derivative, and the line is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

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
