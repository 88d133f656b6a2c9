"""The three array libraries under one roof, so that the same lines of a layer run in each.

What NumPy, torch and jax.numpy spell alike goes straight through to the library; the few functions that they
do not are spelled out here, under NumPy's names where it has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["NUMPY", "Namespace", "jax_namespace", "torch_namespace"]

Array = Any


@dataclass(frozen=True)
class Namespace:
    """An array library.

    amax(x, axis): the maximum over one axis. pad(x, width, axes): zeros on both sides of the last `axes` axes.
    add_at, set_at(length, index, rows): an array of `length` rows of zeros in which rows[i] is added to, or put
    in the place of, row index[i]; index has any shape, and rows that shape and then a row's.
    cast(x, dtype): x in the dtype of this name.
    """

    library: ModuleType
    amax: Callable[[Array, int], Array]
    pad: Callable[[Array, int, int], Array]
    add_at: Callable[[int, Array, Array], Array]
    set_at: Callable[[int, Array, Array], Array]
    cast: Callable[[Array, str], Array]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def through(self, dtype: str, x: Array) -> Array:
        """x rounded to a narrower dtype, and back in its own."""
        return self.cast(self.cast(x, dtype), str(x.dtype).rpartition(".")[2])

    def one_hot(self, index: Array, length: int, like: Array) -> Array:
        """Rows of zeros with a one at each index, in the dtype of `like`."""
        return self.cast(index[..., None] == self.arange(length), str(like.dtype).rpartition(".")[2])

    def lower_triangle(self, size: int) -> Array:
        """True on and below the diagonal."""
        return self.arange(size)[:, None] >= self.arange(size)

    def only(self, place: int, x: Array) -> Array:
        """x where its flat index is `place`, zeros elsewhere."""
        return self.where(self.arange(math.prod(x.shape)).reshape(x.shape) == place, x, 0.0)


def _numpy_pad(library: ModuleType) -> Callable[[Array, int, int], Array]:
    return lambda x, width, axes: library.pad(x, [(0, 0)] * (x.ndim - axes) + [(width, width)] * axes)


def _numpy_scatter(accumulate: bool) -> Callable[[int, Array, Array], Array]:
    def scatter(length: int, index: Array, rows: Array) -> Array:
        out = np.zeros((length, *rows.shape[index.ndim :]), rows.dtype)
        if accumulate:
            np.add.at(out, index, rows)
        else:
            out[index] = rows
        return out

    return scatter


NUMPY = Namespace(
    np,
    lambda x, axis: np.max(x, axis=axis),
    _numpy_pad(np),
    _numpy_scatter(True),
    _numpy_scatter(False),
    lambda x, dtype: x.astype(dtype),
)


@cache
def torch_namespace() -> Namespace:
    """torch, imported when it is first asked for."""
    import torch

    def scatter(accumulate: bool) -> Callable[[int, Array, Array], Array]:
        def put(length: int, index: Array, rows: Array) -> Array:
            out = rows.new_zeros((length, *rows.shape[index.ndim :]))
            return out.index_put((index,), rows, accumulate=accumulate)

        return put

    return Namespace(
        torch,
        lambda x, axis: torch.amax(x, axis),
        lambda x, width, axes: torch.nn.functional.pad(x, [width] * (2 * axes)),
        scatter(True),
        scatter(False),
        lambda x, dtype: x.to(getattr(torch, dtype)),
    )


@cache
def jax_namespace() -> Namespace:
    """jax.numpy, imported when it is first asked for."""
    import jax.numpy as jnp

    def zeros(length: int, index: Array, rows: Array) -> Array:
        return jnp.zeros((length, *rows.shape[index.ndim :]), rows.dtype)

    return Namespace(
        jnp,
        lambda x, axis: jnp.max(x, axis=axis),
        _numpy_pad(jnp),
        lambda length, index, rows: zeros(length, index, rows).at[index].add(rows),
        lambda length, index, rows: zeros(length, index, rows).at[index].set(rows),
        lambda x, dtype: x.astype(dtype),
    )
