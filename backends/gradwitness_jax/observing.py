"""A loss of jax that shows its activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from gradwitness import tree
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.protocol import Deviation
from gradwitness_jax.pytrees import from_pytree

__all__ = ["ObservedLoss"]


class ObservedLoss:
    """`loss(params, batch)` of any pytree, as a function of its floating arrays by path. See `protocol.Observed`.

    params: arrays, or what `jax.eval_shape` gives in their place.
    """

    constants: Mapping[str, Any] = MappingProxyType({})
    kinds: Mapping[str, str] = MappingProxyType({})

    def __init__(self, loss: Any, params: Any, *, dtype: str, jit: bool) -> None:
        if not callable(loss):
            raise GradwitnessError(f"expected a loss(params, batch) in jax, got {type(loss).__name__}")
        with jax.enable_x64(True):  # a shape alone becomes zeros of its dtype
            params = jax.tree.map(lambda x: np.zeros(x.shape) if isinstance(x, jax.ShapeDtypeStruct) else x, params)
            shown, arrays = from_pytree(params, loss)
        self.params: Mapping[str, Any] = arrays
        self._dtype = dtype
        self._run = jax.jit(shown) if jit else shown
        self.loss = _without_activations(shown)

    def values(self, params: Mapping[str, Any], batch: Any, deviations: Sequence[Deviation] = ()) -> dict[str, Array]:
        with jax.enable_x64(self._dtype == "float64"):
            shown = self._run(jax.tree.map(self._placed, dict(params)), jax.tree.map(self._placed, batch))
            loss, activations = shown if isinstance(shown, tuple) else (shown, {})
            found = {name: np.asarray(x, np.float64) for name, x in tree.flatten(activations, "activations").items()}
            return {**found, "loss": np.asarray(loss, np.float64).reshape(())}

    def _placed(self, x: Any) -> jax.Array:
        """On the device; floats in the dtype asked for."""
        array = np.asarray(x)
        floating = jax.numpy.issubdtype(array.dtype, jax.numpy.floating)
        return jax.numpy.asarray(array, dtype=self._dtype if floating else None)

    def deviations(self, batch: Any) -> list[Deviation]:
        """None: jax's functions are not intercepted; torch's are."""
        return []

    def wide(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = jax.enable_x64(True)
        return context


def _without_activations(shown: Any) -> Any:
    def loss(params: Any, batch: Any) -> Any:
        value = shown(params, batch)
        return value[0] if isinstance(value, tuple) else value

    return loss
