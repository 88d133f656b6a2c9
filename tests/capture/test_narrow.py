"""Losses that compute in fewer digits inside are judged with the floor of that, and backwards are not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from tests.capture.trust import DATA, WEIGHTS, Sined, verdicts, verified


def in_float32(p: Any, b: Any) -> Any:
    hidden = torch.tanh((b["x"] @ p["w"].T).float()).to(p["w"].dtype)
    return (hidden * b["y"]).sum()


class Squashed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = torch.tanh(x.float())
        ctx.save_for_backward(y)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        y = ctx.saved_tensors[0].to(g[0].dtype)
        return g[0] * (1 - y * y) * (1 + 1e-4)


def test_a_loss_that_computes_in_float32_inside_is_judged_with_that_floor() -> None:
    report = verified(in_float32, WEIGHTS, DATA)
    assert report, repr(report)
    (row,) = report.rows
    assert row.captured
    assert row.floor is not None
    assert 1e-9 < row.floor < 1e-5


def test_no_such_floor_excuses_a_ten_thousandth() -> None:
    def wrong(p: Any, b: Any) -> Any:
        return (Squashed.apply(b["x"] @ p["w"].T) * b["y"]).sum()  # type: ignore[no-untyped-call]

    assert verdicts(verified(wrong, WEIGHTS, DATA)) == {"disagree"}


class InFloat32(Sined):
    """Right, but for its backward, which computes in float32 whatever it is given."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return (g[0].float() * ctx.saved_tensors[0].float().cos()).to(g[0].dtype)


def test_a_backward_in_float32_of_a_loss_in_float64_is_not_excused_by_itself() -> None:
    assert verdicts(verified(lambda p, b: InFloat32.apply(p["w"]).sum())) == {"disagree"}  # type: ignore[no-untyped-call]


class SummedNarrowly(torch.autograd.Function):
    """The gradient of w is a sum over rows, kept in the dtype of its terms."""

    in_wide = False

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        terms = g[0] * x
        if SummedNarrowly.in_wide:
            return g[0] * w, terms.double().sum(0).to(w.dtype)
        total = torch.zeros_like(w)
        for term in terms:
            total = total + term
        return g[0] * w, total


@pytest.mark.parametrize("in_wide", [True, False])
def test_a_sum_in_sixteen_bits_is_not_excused_by_its_own_rounding(
    in_wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SummedNarrowly, "in_wide", in_wide)
    rng = np.random.default_rng(5)
    params = {"x": np.abs(rng.standard_normal((1024, 8))), "w": np.ones(8)}

    def loss(p: Any, b: Any) -> Any:
        return (SummedNarrowly.apply(p["x"], p["w"]) * b["y"]).sum()  # type: ignore[no-untyped-call]

    report = verified(loss, params, {"y": np.abs(rng.standard_normal((1024, 8)))}, dtypes="bfloat16")
    (row,) = (row for row in report.rows if row.parameter == "w")
    assert str(row.verdict) == ("agree" if in_wide else "inconclusive"), repr(report)
    assert in_wide or "only its own operations explain that" in row.message


def softmax_in_float32(p: Any, b: Any) -> Any:
    scores = (b["x"] @ p["w"].T).astype(jnp.float32)
    return (jax.nn.softmax(scores).astype(p["w"].dtype) * b["y"]).sum()


def stopped_in_float32(p: Any, b: Any) -> Any:
    hidden = jnp.tanh((b["x"] @ p["w"].T).astype(jnp.float32)).astype(p["w"].dtype)
    return (lax.stop_gradient(hidden) * hidden * b["y"]).sum()


def test_a_softmax_of_jax_in_float32_proves_itself() -> None:
    """Differences of the loss are too noisy, and those of its graph see all, though jax stops at the maximum."""
    report = verified(softmax_in_float32, WEIGHTS, DATA, backend="jax")
    assert report, repr(report)
    assert all(row.captured for row in report.rows)


def test_what_is_stopped_and_does_not_cancel_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness_jax.capture._is_of_the_user", lambda equation: False)
    report = verified(stopped_in_float32, WEIGHTS, DATA, backend="jax")
    assert not report, repr(report)
    assert not any(row.captured for row in report.rows)
