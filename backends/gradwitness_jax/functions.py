"""The whole vocabulary in jax's native ops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

from gradwitness_jax import (
    arrays,
    attention,
    contractions,
    elementwise,
    linear_algebra,
    losses,
    normalizations,
    pooling,
    recurrent,
    reductions,
    softmax,
)

__all__ = ["FUNCTIONS", "functions"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **elementwise.FUNCTIONS,
    **arrays.FUNCTIONS,
    **reductions.FUNCTIONS,
    **softmax.FUNCTIONS,
    **contractions.FUNCTIONS,
    **linear_algebra.FUNCTIONS,
    **pooling.FUNCTIONS,
    **normalizations.FUNCTIONS,
    **recurrent.FUNCTIONS,
    **attention.FUNCTIONS,
    **losses.FUNCTIONS,
}


def functions(dtype: str) -> dict[str, Callable[..., Any]]:
    """Op name -> jax function, for graphs that run in `dtype`, which one_hot cannot tell from its labels."""
    return FUNCTIONS | {"one_hot": partial(FUNCTIONS["one_hot"], dtype=jnp.dtype(dtype))}
