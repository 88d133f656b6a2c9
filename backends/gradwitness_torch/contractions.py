"""Sums of products, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "matmul": torch.matmul,
    "linear": F.linear,
    "conv2d": F.conv2d,
}
