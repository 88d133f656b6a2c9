"""Captured losses of which some units are exactly at a bend, or tie: at sparse initialisation, say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import gradwitness as gw
from gradwitness.verdict import ACCEPTED, Verdict

X = np.array([[0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]])
V = np.arange(1.0, 7.0).reshape(2, 3)

IN_TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "clamp at its least": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "hardtanh": F.hardtanh,  # whose bends at -1 and 1 jump in opposite ways
    "amax": lambda x: x.amax(1, keepdim=True) * x.new_ones(3),
    "max": lambda x: x.max(1, keepdim=True).values * x.new_ones(3),
}
IN_JAX: dict[str, Callable[[Any], Any]] = {
    "abs": jnp.abs,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "max": lambda x: x.max(1, keepdims=True) * jnp.ones(3),
}
CASES = [*(("torch", name) for name in IN_TORCH), *(("jax", name) for name in IN_JAX)]


def verified(backend: str, function: Callable[[Any], Any]) -> gw.Report:
    own = torch.as_tensor(V) if backend == "torch" else V
    candidate = gw.Candidate(backend, lambda p, b: (function(p["x"]) * own).sum())
    return gw.verify({backend: candidate}, {"x": X}, {}, dtypes="float64")


@pytest.mark.parametrize(("backend", "name"), CASES)
def test_a_framework_s_own_slope_is_accepted(backend: str, name: str) -> None:
    (row,) = verified(backend, (IN_TORCH if backend == "torch" else IN_JAX)[name]).rows
    assert row.verdict in ACCEPTED, row.message
    assert row.captured


class Outside(torch.autograd.Function):
    """|x| with a slope of 2 at 0, which lies between none of its slopes nearby."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.abs()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.where(x == 0, 2.0, x.sign())


def test_a_slope_that_is_none_is_not() -> None:
    (row,) = verified("torch", Outside.apply).rows
    assert row.verdict is Verdict.DISAGREE, row.message


def behind_zeros(capture: str, seed: int = 0) -> list[Any]:
    """Hidden units whose weights and biases begin at zero: all of them are at the bend of relu, and pull either way."""
    draw = np.random.default_rng(seed).normal
    params = {"w": np.zeros((4, 5)), "b": np.zeros(4), "v": draw(size=(4, 3)), "c": np.ones(3)}

    def loss(p: Any, b: Any) -> Any:
        hidden = torch.relu(b["x"] @ p["w"].T + p["b"])
        return ((hidden @ p["v"]).tanh() + p["c"]).square().mean()

    batch = {"x": draw(size=(6, 5))}
    return list(gw.verify({"torch": loss}, params, batch, dtypes="float64", capture=capture).rows)


def test_a_layer_that_begins_at_zero_is_captured() -> None:
    for row in behind_zeros("auto"):
        assert row.verdict in ACCEPTED, row.message
        assert row.captured


@pytest.mark.parametrize("seed", range(3))
def test_jumps_that_cancel_accuse_nobody(seed: int) -> None:
    verdicts = {row.parameter: row.verdict for row in behind_zeros("never", seed)}
    assert Verdict.DISAGREE not in verdicts.values()
    assert verdicts["c"] is Verdict.AGREE


# Beside a gradient by hand, of which differences see nothing at a bend


def beside_a_slope(slope: float, dtype: str = "float64", backend: str = "torch") -> dict[str, Any]:
    """By candidate: the row of |w|, beside a gradient in NumPy that claims this slope at 0."""
    framework: Any = {"torch": torch.abs, "jax": jnp.abs}[backend]
    by_hand = gw.Candidate(
        "numpy",
        lambda p, b: (np.abs(p["w"]) * b["c"]).sum(),
        gradient=lambda p, b: {"w": np.where(p["w"] == 0, p["w"].dtype.type(slope), np.sign(p["w"]) * b["c"])},
    )
    point = {"w": np.array([0.0, 1.5, -0.7]).astype(dtype)}, {"c": np.array([1.0, 2.0, 3.0]).astype(dtype)}
    report = gw.verify({backend: lambda p, b: (framework(p["w"]) * b["c"]).sum(), "mine": by_hand}, *point)
    return {row.candidate: row for row in report.rows}


@pytest.mark.parametrize(
    ("slope", "verdict", "dtype", "backend"),
    [
        (-3.0, "disagree", "float64", "torch"),
        (1.5, "disagree", "float64", "torch"),
        (-1.0, "convention", "float64", "torch"),
        (-1.5, "disagree", "float32", "jax"),
        (0.5, "convention", "float32", "jax"),
    ],
)
def test_the_graph_of_another_judges_it_and_is_not_doubted(
    slope: float, verdict: str, dtype: str, backend: str
) -> None:
    rows = beside_a_slope(slope, dtype, backend)
    assert rows[backend].verdict in (Verdict.AGREE, Verdict.CONVENTION), rows[backend].message
    assert rows["mine"].verdict == verdict, rows["mine"].message
    assert rows["mine"].message.startswith(f"by the graph of {backend!r}: ")


@pytest.mark.parametrize(
    ("slope", "why"),
    [
        (-1.5, r"finite differences are too coarse: \+- \d of a derivative of -1\.5"),
        (100.0, "the loss has a kink at this very point, .*"),
    ],
)
def test_alone_the_element_is_named_with_its_sign_and_both_sides(slope: float, why: str) -> None:
    mine = gw.Candidate(
        "numpy",
        lambda p, b: np.abs(p["w"]).sum(),
        gradient=lambda p, b: {"w": np.where(p["w"] == 0, slope, np.sign(p["w"]))},
    )
    (row,) = gw.verify(mine, {"w": np.array([1.5, 0.0, -0.7])}).rows
    assert row.verdict is Verdict.INCONCLUSIVE
    sides = "; its one-sided derivatives are -1 and 1, a kink that a point beside it avoids; a wrong one could pass"
    assert re.fullmatch(rf"1 of 3 elements, \[1\], could not be seen: {why}{sides}", row.message)
