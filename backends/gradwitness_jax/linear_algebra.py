"""Factors and solves of matrices, in jax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["FUNCTIONS"]


def _in_float32(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """16-bit matrices, for which LAPACK has nothing, in float32."""

    def call(*matrices: jax.Array, **attributes: Any) -> jax.Array:
        if matrices[0].dtype.itemsize > 2:
            return function(*matrices, **attributes)
        return function(*(m.astype(jnp.float32) for m in matrices), **attributes).astype(matrices[0].dtype)

    return call


def _triangular_solve(a: jax.Array, b: jax.Array, *, lower: bool, unit: bool) -> jax.Array:
    """As jax.scipy.linalg.solve_triangular, for stacks that broadcast."""
    leading = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(x, (*leading, *x.shape[-2:])) for x in (a, b))
    return lax.linalg.triangular_solve(a, b, left_side=True, lower=lower, unit_diagonal=unit)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "triangular_solve": _in_float32(_triangular_solve),
    "cholesky": _in_float32(jnp.linalg.cholesky),
}
