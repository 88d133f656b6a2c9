"""Elementwise ops in torch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gradwitness_torch.scalars import Operand, on_tensors, tensors

__all__ = ["FUNCTIONS"]


def _where(condition: Operand, x: Operand, y: Operand) -> torch.Tensor:
    return torch.where(tensors(condition, x, y)[0], x, y)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """By default torch returns x itself above 20, which is off by 1e-10 of it in float64; above 40 by less than u."""
    return F.softplus(x, threshold=40.0)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "maximum": on_tensors(torch.maximum),
    "minimum": on_tensors(torch.minimum),
    "where": _where,
    "negative": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "erf": torch.erf,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": _softplus,
    "hardtanh": F.hardtanh,
    "clip": torch.clamp,
    "stop_gradient": lambda x: x.detach(),
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
