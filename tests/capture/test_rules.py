"""The rule of one's own that is wrong is named, and no other."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gradwitness.run.failing import short
from tests.capture.trust import DATA, Root, Sined, implicit, verdicts, verified


class Scale(Sined):
    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0].mul_(ctx.saved_tensors[0].cos())


class Sine(Sined):
    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * ctx.saved_tensors[0].cos()


@pytest.mark.parametrize("first", [True, False])
def test_a_backward_that_writes_to_its_cotangent_is_named(first: bool) -> None:
    """Whichever of two branches gets the cotangent first: the other's gradient is wrong, or is not by chance."""
    params = {"a": DATA["x"], "b": DATA["x"][::-1].copy()}

    def residual(rule: Any) -> Any:
        def loss(p: Any, b: Any) -> Any:
            parts = [rule.apply(p["a"]), p["b"]]
            return ((sum(parts if first else parts[::-1]) - 1) ** 2).sum()

        return loss

    report = verified(residual(Scale), params)
    assert "Scale: error: fails to leave its arguments alone: its backward writes to grad_output" in repr(report)
    assert verified(residual(Sine), params)


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any, times: int) -> Any:
        ctx.save_for_backward(scale)
        ctx.times = times
        return x * scale * times, x + 1

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return 0.5 * g[0] * ctx.saved_tensors[0] * ctx.times + g[1], None, None


def test_the_rule_that_is_wrong_is_named_and_no_other() -> None:
    def loss(p: Any, b: Any) -> Any:
        first, second = Halved.apply(Sine.apply(p["x"]), b["y"], 3)  # type: ignore[no-untyped-call]
        return (first * second).sum()

    (row,) = verified(loss, {"x": DATA["y"]}, {"y": DATA["y"]}).rows
    assert str(row.verdict) == "disagree"
    named = re.search(
        r"; wrong by itself: the backward of Halved \(input 0, by 0\.\d+ of its norm\) at (\S+):(\d+)", row.message
    )
    assert named is not None, row.message
    assert (named[1], int(named[2])) == (short(__file__), inspect.getsourcelines(Halved.backward)[1])


class Leaky(torch.autograd.Function):
    """It compares, as a solver does, and is none."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, 0.1 * x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return torch.where(ctx.saved_tensors[0] > 0, g[0], 0.2 * g[0])


def test_a_rule_that_compares_is_named_once_its_graph_is_proven() -> None:
    (row,) = verified(lambda p, b: (Leaky.apply(p["x"]) * b["y"]).sum(), {"x": DATA["y"]}, {"y": DATA["y"]}).rows  # type: ignore[no-untyped-call]
    assert "; wrong by itself: the backward of Leaky (input 0, by 0." in row.message


def test_a_solver_is_named_by_its_own_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "factor", 1.001)
    (row,) = verified(implicit).rows
    place = f"{short(inspect.getfile(Root))}:{inspect.getsourcelines(Root.backward)[1]}"
    assert row.message.endswith(f"; wrong by itself: the backward of Root (input 0, refuted by differences) at {place}")


class OffWhereLarge(torch.autograd.Function):
    """Right at the first call that its backward sees, and wrong at the second."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x = ctx.saved_tensors[0]
        return g[0] * 3 * x**2 * torch.where(x.abs().max() > 1, 1.5, 1.0)


def test_a_rule_is_looked_at_wherever_it_is_called() -> None:
    def loss(p: Any, b: Any) -> Any:
        return OffWhereLarge.apply(torch.tanh(OffWhereLarge.apply(p["w"]))).sum()  # type: ignore[no-untyped-call]

    (row,) = verified(loss).rows
    assert "; wrong by itself: the backward of OffWhereLarge (input 0, by 0.5 of its norm)" in row.message


def test_where_all_rules_are_right_none_is_named() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (Sine.apply(p["w"]) * p["w"].detach()).sum()  # type: ignore[no-untyped-call]

    (row,) = verified(loss).rows
    assert str(row.verdict) == "disagree"
    assert "by itself" not in row.message


def test_slopes_that_cancel_at_a_kink_excuse_no_rule_that_differences_refute() -> None:
    """log(exp(x) + exp(y)) as jax composes it has a maximum and an absolute value, and no kink."""

    @jax.custom_vjp
    def added(x: Any, y: Any) -> Any:
        return jnp.logaddexp(x, y)

    added.defvjp(lambda x, y: (added(x, y), ()), lambda _, g: (g, 0 * g))
    same = {"x": np.zeros(3), "y": np.zeros(3)}
    report = verified(lambda p, b: (added(p["x"], p["y"]) * jnp.arange(1.0, 4.0)).sum(), same, backend="jax")
    assert verdicts(report) <= {"disagree", "inconclusive"}, repr(report)
    assert not report
