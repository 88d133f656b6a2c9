"""Attention and dropout, in jax.

jax.nn.dot_product_attention takes its softmax in float32 even for float64 operands, so this is the
einsum composition of flax.linen.attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["FUNCTIONS"]


def _scaled_dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    attn_mask: jax.Array | None,
    *,
    is_causal: bool,
    scale: float | None,
) -> jax.Array:
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.einsum("bhtd,bhsd->bhts", query * scale, key)
    mask = jnp.tri(query.shape[-2], key.shape[-2], dtype=bool) if is_causal else attn_mask
    if mask is None:
        return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores), value)
    # finite, so that a row in which nothing is allowed has a finite softmax, whose weights are then dropped
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min))  # type: ignore[no-untyped-call]  # of ml_dtypes
    return jnp.einsum("bhts,bhsd->bhtd", jnp.where(mask, weights, 0.0), value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "dropout": lambda x, mask, *, p: jnp.where(mask, x / (1 - p), 0.0),
}
