"""Ops that move values about, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gradwitness_torch.scalars import tensors

__all__ = ["FUNCTIONS"]


def _take(x: torch.Tensor, indices: torch.Tensor, *, axis: int) -> torch.Tensor:
    if axis == 0 and x.ndim == 2:
        return F.embedding(indices, x)
    return x[(slice(None),) * axis + (indices,)]


def _one_hot(labels: torch.Tensor, *, num_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """F.one_hot refuses labels out of range, such as those that a loss ignores; here they give zeros."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[..., None] == classes).to(dtype)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "transpose": lambda x, *, axes: torch.permute(x, axes),
    "reshape": lambda x, *, shape: torch.reshape(x, shape),
    "broadcast_to": lambda x, *, shape: torch.broadcast_to(x, shape),
    "concatenate": lambda arrays, *, axis: torch.cat(arrays, dim=axis),
    "stack": lambda arrays, *, axis: torch.stack(tensors(*arrays), dim=axis),
    "index": lambda x, *, key: x[key],
    "take": _take,
    "one_hot": _one_hot,
}
