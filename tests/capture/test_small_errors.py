"""Errors that are small beside the leaf, or beside a rounding of the dtype on trial: none is believed, none accused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradwitness as gw
from gradwitness.verdict import Verdict

FACTORS = {"right": 3.0, "twice its derivative": 6.0}


def cube(factor: float) -> Any:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            y: torch.Tensor = x**3
            return y

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            pulled: torch.Tensor = g * factor * x**2
            return pulled

    return Cube.apply


@pytest.mark.parametrize(("factor", "verdict"), [("right", "agree"), ("twice its derivative", "inconclusive")])
def test_small_elements_are_not_vouched_for_by_large_ones(factor: str, verdict: str) -> None:
    own = cube(FACTORS[factor])

    def loss(p: Any, b: Any) -> Any:
        return (p["a"][:5] ** 2).sum() + 1e-13 * own(p["a"][5:]).sum()

    a = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (row,) = gw.verify({"torch": loss}, {"a": a}, {}, dtypes="float64").rows
    assert (str(row.verdict), row.captured is not None) == (verdict, True)


def dirichlet(factor: float) -> Any:
    """Of negative entropy; torch's trigamma, which its gradient takes, is off by 5e-10 in float64."""

    def loss(p: Any, b: Any) -> Any:
        a = p["a"].exp()
        a = a.detach() + factor * (a - a.detach())
        return torch.distributions.Dirichlet(a).entropy().mean()

    return loss


@pytest.mark.parametrize(("factor", "accused"), [(1.0, False), (1.001, True)])
def test_a_special_function_of_float64_accuses_nobody_in_float32(factor: float, accused: bool) -> None:
    a = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    (row,) = gw.verify({"torch": dirichlet(factor)}, {"a": a}, {}, dtypes="float32").rows
    assert (row.verdict is Verdict.DISAGREE) == accused, row.message


def test_numbers_that_nine_digits_do_not_tell_apart_have_more() -> None:
    own = cube(3.0 * (1 + 1e-10))
    a = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (row,) = gw.verify({"torch": lambda p, b: own(p["a"]).sum()}, {"a": a}, {}, dtypes="float64").rows
    got, expected = row.message.partition("]: ")[2].split(",")[:2]
    assert row.verdict is Verdict.DISAGREE
    assert float(got) != float(expected.split()[-1])


class Sine(torch.autograd.Function):
    """Right in float64, and a tenth too large in 16 bits."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.cos(x) * (1.1 if x.dtype is torch.bfloat16 else 1.0)


def test_what_rounding_hides_in_16_bits_is_said_and_a_referee_sees_it() -> None:
    draw = torch.Generator().manual_seed(0)
    params, batch = {"w": torch.randn(8, 6, generator=draw)}, {"x": torch.randn(12, 8, generator=draw)}

    def loss(rule: Any) -> gw.Candidate:
        return gw.Candidate("torch", lambda p, b: (rule(b["x"] @ p["w"]) ** 2).mean())

    both = {"mine": loss(Sine.apply), "plain": loss(torch.sin)}
    alone = {row.candidate: row for row in gw.verify(both, params, batch, dtypes="bfloat16").rows}
    assert (str(alone["mine"].verdict), "hides errors of more than 1%" in alone["mine"].message) == ("agree", True)
    seen = {row.candidate: row for row in gw.verify(both, params, batch, dtypes="bfloat16", referee="plain").rows}
    assert [str(seen[label].verdict) for label in ("mine", "plain")] == ["disagree", "agree"], seen["mine"].message
    assert ["referee=" in row.message for row in (alone["plain"], seen["plain"])] == [True, False]
