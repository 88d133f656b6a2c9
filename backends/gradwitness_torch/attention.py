"""Attention and dropout, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["FUNCTIONS"]


def _scaled_dot_product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None, **attributes: Any
) -> torch.Tensor:
    if attn_mask is not None and attn_mask.ndim < 2:  # F's broadcasts, but for these
        attn_mask = attn_mask.expand(query.shape[-2], key.shape[-2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask, **attributes)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "dropout": lambda x, mask, *, p: torch.where(mask, x / (1 - p), 0.0),
}
