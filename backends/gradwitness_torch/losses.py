"""Losses, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gradwitness_torch.scalars import Operand, tensors

__all__ = ["FUNCTIONS"]


def _mse(prediction: Operand, target: Operand, *, reduction: str, half: bool) -> torch.Tensor:
    loss = F.mse_loss(*tensors(prediction, target), reduction=reduction)
    return loss / 2 if half else loss


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mse": _mse,
    "huber": lambda prediction, target, **how: F.huber_loss(*tensors(prediction, target), **how),
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy_with_logits": lambda logits, targets, *, reduction: F.binary_cross_entropy_with_logits(
        *tensors(logits, targets), reduction=reduction
    ),
}
