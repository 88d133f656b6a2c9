"""Ops that move values about, in jax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "transpose": lambda x, *, axes: jnp.transpose(x, axes),
    "reshape": lambda x, *, shape: jnp.reshape(x, shape),
    "broadcast_to": lambda x, *, shape: jnp.broadcast_to(x, shape),
    "concatenate": jnp.concatenate,
    "stack": jnp.stack,
    "index": lambda x, *, key: x[key],
    "take": jnp.take,
    "one_hot": jax.nn.one_hot,
}
