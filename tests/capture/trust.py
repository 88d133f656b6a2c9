"""Losses, and how they are verified, of the tests of whether a graph is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import gradwitness as gw

__all__ = [
    "DATA",
    "ROUTED",
    "TO",
    "WEIGHTS",
    "Root",
    "Sined",
    "W",
    "branching",
    "halved",
    "implicit",
    "routed",
    "verdicts",
    "verified",
    "why_not",
]

W = {"w": np.array([0.7, 1.3, 2.0])}
TO = torch.arange(1.0, 4.0).double()
ROUTED = {"r": np.array([0.3, -1.0, 1.1, 0.2]), "e": np.random.default_rng(1).standard_normal((4, 3))}
DATA = {"x": np.random.default_rng(2).standard_normal((6, 5)), "y": np.random.default_rng(3).standard_normal((6, 4))}
WEIGHTS = {"w": np.random.default_rng(4).standard_normal((4, 5))}


def verified(loss: Any, params: Any = W, batch: Any = None, backend: str = "torch", **how: Any) -> gw.Report:
    return gw.verify({backend: loss}, params, batch, **({"dtypes": "float64"} | how))


def verdicts(report: gw.Report) -> set[str]:
    return {str(row.verdict) for row in report.rows}


def why_not(report: gw.Report) -> str:
    (why,) = {row.not_captured for row in report.rows}
    assert why is not None, "it was captured"
    return why


def halved(w: Any, where: Any, zeros: Any, threes: Any) -> Any:
    low, high = zeros, threes
    for _ in range(60):
        middle = (low + high) / 2
        below = middle**3 < w
        low, high = where(below, middle, low), where(below, high, middle)
    return low


class Sined(torch.autograd.Function):
    """The sine, with a backward of whoever inherits it."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.sin(x)


class Root(torch.autograd.Function):
    """The cube root by halves; its backward by the implicit function theorem."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, w: Any) -> Any:
        root = halved(w, torch.where, torch.zeros_like(w), torch.full_like(w, 3.0))
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return Root.factor * g[0] / (3 * ctx.saved_tensors[0] ** 2)


def implicit(p: Any, b: Any) -> Any:
    return (Root.apply(p["w"]) * TO).sum()  # type: ignore[no-untyped-call]


def routed(p: Any, b: Any) -> Any:
    weights, chosen = torch.softmax(p["r"], -1).topk(2)
    experts = torch.stack([(p["e"][j] * b["x"]).sum() for j in range(4)])
    return (weights / weights.sum() * experts[chosen]).sum()


def branching(p: Any, b: Any) -> Any:
    return (p["w"] ** 2).sum() if p["w"].sum() > 0 else p["w"].sum()
