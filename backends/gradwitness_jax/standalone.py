"""What a script without gradwitness runs jax's candidates by: the source of these functions is written into it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["by_hand", "gradient", "value"]


def placed(arguments: Any, dtype: str, device: str) -> Any:
    """The arrays on the device: floats in this dtype, integers and booleans as they are."""
    there = jax.devices("gpu" if device == "cuda" else device)[0]
    put = lambda a: jax.device_put(jnp.asarray(a, dtype if a.dtype.kind == "f" else None), there)  # noqa: E731
    return jax.tree.map(put, arguments)


def value(loss: Any, arguments: Any, dtype: str, device: str) -> float:
    with jax.enable_x64(dtype == "float64"):
        return float(jnp.reshape(loss(*placed(arguments, dtype, device)), ()))


def gradient(loss: Any, leaf: Any, arguments: Any, dtype: str, device: str, *, jit: bool = True) -> Any:
    with jax.enable_x64(dtype == "float64"):
        total = lambda arguments: jnp.reshape(loss(*arguments), ())  # noqa: E731
        differentiate = jax.grad(total, allow_int=True)
        found = (jax.jit(differentiate) if jit else differentiate)(placed(arguments, dtype, device))
        return np.asarray(leaf(*found), np.float64)


def by_hand(function: Any, leaf: Any, arguments: Any, dtype: str, device: str) -> Any:
    with jax.enable_x64(dtype == "float64"):
        found = leaf(function(*placed(arguments, dtype, device)))
        return None if found is None else np.asarray(found, np.float64)
