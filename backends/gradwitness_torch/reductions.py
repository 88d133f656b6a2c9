"""Reductions over axes, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, *, axis, keepdims: torch.sum(x, dim=axis, keepdim=keepdims),
    "mean": lambda x, *, axis, keepdims: torch.mean(x, dim=axis, keepdim=keepdims),
    "max": lambda x, *, axis, keepdims: torch.amax(x, dim=axis, keepdim=keepdims),
    "min": lambda x, *, axis, keepdims: torch.amin(x, dim=axis, keepdim=keepdims),
    "var": lambda x, *, axis, keepdims, correction: torch.var(x, dim=axis, keepdim=keepdims, correction=correction),
    "std": lambda x, *, axis, keepdims, correction: torch.std(x, dim=axis, keepdim=keepdims, correction=correction),
    "norm": lambda x, *, axis, keepdims, ord: torch.linalg.vector_norm(x, ord=ord, dim=axis, keepdim=keepdims),
}
