"""Attention and dropout, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": F.scaled_dot_product_attention,
    "dropout": lambda x, mask, *, p: torch.where(mask, x / (1 - p), 0.0),
}
