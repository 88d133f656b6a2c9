"""Python scalars where torch takes only tensors."""

from __future__ import annotations

import torch

__all__ = ["tensors"]

Operand = torch.Tensor | float | bool


def tensors(*operands: Operand) -> list[torch.Tensor]:
    """The operands, with scalars as tensors of shape () like the first tensor (booleans stay boolean)."""
    like = next(o for o in operands if isinstance(o, torch.Tensor))
    return [o if isinstance(o, torch.Tensor) else _scalar(o, like) for o in operands]


def _scalar(value: float | bool, like: torch.Tensor) -> torch.Tensor:
    dtype = torch.bool if isinstance(value, bool) else like.dtype
    return torch.full((), value, dtype=dtype, device=like.device)
