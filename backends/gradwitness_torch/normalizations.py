"""Normalisations, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "layer_norm": lambda x, weight, bias, *, eps: F.layer_norm(x, weight.shape, weight, bias, eps),
    "rms_norm": lambda x, weight, *, eps: F.rms_norm(x, weight.shape, weight, eps),
    "batch_norm": lambda x, weight, bias, *, eps: F.batch_norm(x, None, None, weight, bias, training=True, eps=eps),
}
