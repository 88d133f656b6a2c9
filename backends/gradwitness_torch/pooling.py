"""Pooling over windows, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max_pool2d": F.max_pool2d,
    "avg_pool2d": F.avg_pool2d,
}
