"""A graph of a solver is used only if its derivative is that of the loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch

from tests.capture.trust import TO, Root, halved, implicit, verdicts, verified, why_not


def bisected(p: Any, b: Any) -> Any:
    return (halved(p["w"], torch.where, torch.zeros(3).double(), torch.full((3,), 3.0).double()) * TO + p["w"]).sum()


def bisected_in_jax(p: Any, b: Any) -> Any:
    return (halved(p["w"], jnp.where, jnp.zeros(3), jnp.full(3, 3.0)) + p["w"]).sum()


@pytest.mark.parametrize(("loss", "backend"), [(bisected, "torch"), (bisected_in_jax, "jax")])
def test_bisection_has_the_values_of_a_root_and_the_derivative_of_stairs(loss: Any, backend: str) -> None:
    """Traced, its derivative is that of w alone; 256-bit differences at 2^-110 are below its stairs, and confirm it."""
    report = verified(loss, backend=backend)
    assert verdicts(report) == {"disagree"}
    assert "its derivatives do not: does a step of it end on a comparison?" in why_not(report)


def test_an_implicit_rule_is_judged_by_the_values_of_its_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verified(implicit)
    assert right, repr(right)
    assert "does a step of it end on a comparison?" in why_not(right)
    monkeypatch.setattr(Root, "factor", 1.001)
    assert verdicts(verified(implicit)) == {"disagree"}


def newton(w: Any, ones: Any, steps: int) -> Any:
    x = ones
    for _ in range(steps):
        x = x - (x**3 - w) / (3 * x**2)
    return x


@pytest.mark.parametrize("steps", [3, 8])
def test_newtons_steps_are_unrolled(steps: int) -> None:
    report = verified(lambda p, b: newton(p["w"], torch.ones_like(p["w"]), steps).sum())
    assert report, repr(report)
    assert all(row.captured for row in report.rows)


def test_a_fixed_point_that_ends_at_a_tolerance_is_judged_one_way_or_the_other() -> None:
    def settled(p: Any, b: Any) -> Any:
        x = torch.ones_like(p["w"])
        while ((x.cos() * p["w"] / 3 - x).abs().max() > 1e-14).item():
            x = x.cos() * p["w"] / 3
        return x.sum()

    report = verified(settled)
    assert verdicts(report) <= {"agree", "inconclusive"}, repr(report)


def test_a_while_loop_of_jax_is_unrolled_as_it_ran() -> None:
    @jax.custom_vjp
    def root(w: Any) -> Any:
        return jax.lax.while_loop(
            lambda x: jnp.max(jnp.abs(x**3 - w)) > 1e-12, lambda x: x - (x**3 - w) / (3 * x**2), jnp.ones_like(w)
        )

    root.defvjp(lambda w: (root(w),) * 2, lambda x, g: (g / (3 * x**2),))
    report = verified(lambda p, b: root(p["w"]).sum(), backend="jax")
    assert report, repr(report)
    assert any("when a while loop ends" in remark for row in report.rows for remark in row.remarks)


class Steps(torch.autograd.Function):
    """x = cos(x) w / 3, by as many steps as leave 1e-13 of it."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, w: Any) -> Any:
        x = torch.ones_like(w)
        for _ in range(70):
            x = x.cos() * w / 3
        ctx.save_for_backward(x, w)
        return x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        return Steps.factor * g[0] * x.cos() / 3 / (1 + x.sin() * w / 3)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_an_iteration_that_ends_at_a_tolerance_is_no_better_than_that(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The implicit rule is right to 1e-12; its unrolled steps have another derivative in the last digits."""
    monkeypatch.setattr(Steps, "factor", factor)
    report = verified(lambda p, b: Steps.apply(p["w"]).sum())  # type: ignore[no-untyped-call]
    assert verdicts(report) == ({"agree"} if factor == 1.0 else {"disagree"}), repr(report)
