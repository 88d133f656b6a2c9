"""Reductions over axes, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FUNCTIONS", "over_axes"]


def over_axes(reduction: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The reduction by the vocabulary's signature. No axes at all (of a scalar, say) means all of them to torch."""

    def reduce(x: torch.Tensor, *, axis: tuple[int, ...], keepdims: bool, **how: Any) -> torch.Tensor:
        if not axis:
            return reduction(x[..., None], dim=-1, **how)
        return reduction(x, dim=axis, keepdim=keepdims, **how)

    return reduce


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": over_axes(torch.sum),
    "mean": over_axes(torch.mean),
    "max": over_axes(torch.amax),
    "min": over_axes(torch.amin),
    "var": over_axes(torch.var),
    "std": over_axes(torch.std),
    "norm": over_axes(torch.linalg.vector_norm),
}
