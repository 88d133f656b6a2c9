"""Python scalars where torch takes only tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Operand", "on_tensors", "tensors"]

Operand = torch.Tensor | float | bool


def tensors(*operands: Operand) -> list[torch.Tensor]:
    """The operands, with scalars as tensors of shape () like the first tensor (booleans stay boolean)."""
    like = next(o for o in operands if isinstance(o, torch.Tensor))
    return [o if isinstance(o, torch.Tensor) else _scalar(o, like) for o in operands]


def on_tensors(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function of two tensors, for operands of which one may be a scalar."""

    def call(x: Operand, y: Operand, **attributes: Any) -> torch.Tensor:
        return function(*tensors(x, y), **attributes)

    return call


def _scalar(value: float | bool, like: torch.Tensor) -> torch.Tensor:
    dtype = torch.bool if isinstance(value, bool) else like.dtype
    return torch.full((), value, dtype=dtype, device=like.device)
