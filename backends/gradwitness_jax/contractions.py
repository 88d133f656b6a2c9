"""Sums of products, in jax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["FUNCTIONS", "linear"]

Pair = tuple[int, int]


def linear(x: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """As flax.linen.Dense, with weight (out, in)."""
    product = jnp.matmul(x, weight.T)
    return product if bias is None else product + bias


def _conv2d(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> jax.Array:
    """As flax.linen.Conv, in layout NCHW / OIHW."""
    result = lax.conv_general_dilated(
        x,
        weight,
        window_strides=stride,
        padding=[(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=groups,
    )
    return result if bias is None else result + bias[:, None, None]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "matmul": jnp.matmul,
    "linear": linear,
    "conv2d": _conv2d,
}
