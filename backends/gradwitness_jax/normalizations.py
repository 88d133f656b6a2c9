"""Normalisations, in jax: mean, var and rsqrt in float32 or wider, as flax and equinox run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["FUNCTIONS"]


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _standardized(x: jax.Array, axes: tuple[int, ...], eps: float) -> jax.Array:
    """x less its mean, over its standard deviation. The variance takes two passes (flax's default takes one)."""
    wide = _wide(x)
    mean, variance = jnp.mean(wide, axes, keepdims=True), jnp.var(wide, axes, keepdims=True)
    return (wide - mean) * lax.rsqrt(variance + eps)


def _trailing(x: jax.Array, weight: jax.Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - weight.ndim, x.ndim))


def _layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, *, eps: float) -> jax.Array:
    return (_standardized(x, _trailing(x, weight), eps) * weight + bias).astype(x.dtype)


def _rms_norm(x: jax.Array, weight: jax.Array, *, eps: float) -> jax.Array:
    wide = _wide(x)
    mean_square = jnp.mean(jnp.square(wide), _trailing(x, weight), keepdims=True)
    return (wide * lax.rsqrt(mean_square + eps) * weight).astype(x.dtype)


def _batch_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, *, eps: float) -> jax.Array:
    axes = tuple(a for a in range(x.ndim) if a != 1)
    channels = (-1, *(1 for _ in axes[1:]))
    return (_standardized(x, axes, eps) * weight.reshape(channels) + bias.reshape(channels)).astype(x.dtype)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
}
