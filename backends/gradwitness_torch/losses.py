"""Losses, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gradwitness_torch.scalars import Operand, on_tensors

__all__ = ["FUNCTIONS"]


def _mse(prediction: Operand, target: Operand, *, reduction: str, half: bool) -> torch.Tensor:
    loss = on_tensors(F.mse_loss)(prediction, target, reduction=reduction)
    return loss / 2 if half else loss


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mse": _mse,
    "huber": on_tensors(F.huber_loss),
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy_with_logits": on_tensors(F.binary_cross_entropy_with_logits),
}
