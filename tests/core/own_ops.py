"""An op of a user's own, swish, right in every framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

import gradwitness as gw
from gradwitness import ops
from gradwitness.own_ops import Spec, real, sample
from gradwitness.report import Report
from gradwitness.verdict import Verdict

DIRECT = ("numpy", "jax", "torch")
SAMPLES = [sample(real(2, 3)), sample(real(7), beta=1.5), sample(real(2, 1, 4, scale=2.0), beta=0.3)]
Define = Callable[..., Any]


def swish(x: Spec, *, beta: float = 1.0) -> Spec:
    """x * sigmoid(beta * x)."""
    return x


def forward(x: Any, *, beta: float) -> Any:
    return x / (1 + np.exp(-beta * x))


def vjp(g: Any, y: Any, x: Any, *, beta: float) -> Any:
    s = 1 / (1 + np.exp(-beta * x))
    return g * (s + beta * y * (1 - s))


def in_torch(x: Any, *, beta: float) -> Any:
    return x * torch.sigmoid(beta * x)


def in_jax(x: Any, *, beta: float) -> Any:
    return x * jax.nn.sigmoid(beta * x)


def in_ops(x: Any, *, beta: float) -> Any:
    return x * ops.sigmoid(x * beta)


def define(**changed: Any) -> Any:
    """swish, with some arguments of the definition in the place of others, or left out by None."""
    functions = {"numpy": (forward, vjp), "torch": in_torch, "jax": in_jax}
    given: dict[str, Any] = {"rounding": "rounded", "samples": SAMPLES, **functions, **changed}
    return gw.define_op(given.pop("shape", swish), **{k: v for k, v in given.items() if v is not None})


def loss_of(op: Any, **attributes: Any) -> Callable[[Any, Any], Any]:
    def loss(params: Any, batch: Any) -> Any:
        return ops.mse(op(batch["x"] @ params["w"], **attributes), batch["y"], reduction="mean", half=False)

    return loss


def verify(op: Any, *, backends: Any = DIRECT, dtypes: Any = ("float64", "float32"), **attributes: Any) -> Report:
    draw = np.random.default_rng(0).standard_normal
    params, batch = {"w": draw((3, 4))}, {"x": draw((5, 3)), "y": draw((5, 4))}
    return gw.verify(loss_of(op, **attributes), params, batch, backends=backends, dtypes=dtypes)


def at_fault(report: Report) -> set[str]:
    return {row.candidate for row in report.rows if row.verdict is Verdict.DISAGREE}


def softened(x: Spec, y: Spec) -> Spec:
    """x * tanh(y), of arrays that broadcast."""
    return Spec(np.broadcast_shapes(x.shape, y.shape))
