"""Pooling over windows, in jax: lax.reduce_window, as flax.linen.pooling runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["FUNCTIONS"]

Pair = tuple[int, int]


def _pool(x: jax.Array, start: float, reduce: Any, kernel_size: Pair, stride: Pair, padding: Pair) -> jax.Array:
    """Each window of the images (N, C, H, W) reduced from `start`."""
    sides = ((0, 0), (0, 0), *((p, p) for p in padding))
    result: jax.Array = lax.reduce_window(x, start, reduce, (1, 1, *kernel_size), (1, 1, *stride), sides)
    return result


def _max_pool2d(x: jax.Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> jax.Array:
    return _pool(x, -jnp.inf, lax.max, kernel_size, stride, padding)


def _avg_pool2d(x: jax.Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> jax.Array:
    return _pool(x, 0.0, lax.add, kernel_size, stride, padding) / (kernel_size[0] * kernel_size[1])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
}
