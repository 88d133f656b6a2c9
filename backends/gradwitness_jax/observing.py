"""A loss of jax that shows its activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from gradwitness import tree
from gradwitness.errors import GradwitnessError
from gradwitness.protocol import Array, Deviation
from gradwitness_jax.pytrees import from_pytree

__all__ = ["ObservedLoss"]


class ObservedLoss:
    """`loss(params, batch)` of any pytree, as a function of its floating arrays by path. See `protocol.Observed`.

    params: arrays, or what `jax.eval_shape` gives in their place.
    """

    constants: Mapping[str, Any] = MappingProxyType({})
    kinds: Mapping[str, str] = MappingProxyType({})

    def __init__(self, loss: Any, params: Any, *, jit: bool) -> None:
        if not callable(loss):
            raise GradwitnessError(f"expected a loss(params, batch) in jax, got {type(loss).__name__}")
        with jax.enable_x64(True):  # a shape alone becomes zeros of its dtype
            params = jax.tree.map(lambda x: np.zeros(x.shape) if isinstance(x, jax.ShapeDtypeStruct) else x, params)
            shown, arrays = from_pytree(params, loss)
        self.params: Mapping[str, Any] = arrays
        self._jit = jit
        self._run = jax.jit(shown) if jit else shown
        self.loss = _without_activations(shown)

    def values(self, params: Mapping[str, Any], batch: Any, deviations: Sequence[Deviation] = ()) -> dict[str, Array]:
        with jax.enable_x64(True):
            shown = self._run(jax.tree.map(_wide, dict(params)), jax.tree.map(_wide, batch))
            loss, activations = shown if isinstance(shown, tuple) else (shown, {})
            found = {name: np.asarray(x, np.float64) for name, x in tree.flatten(activations, "activations").items()}
            return {**found, "loss": np.asarray(loss, np.float64).reshape(())}

    def deviations(self, batch: Any) -> list[Deviation]:
        """None: jax's functions are not intercepted; torch's are."""
        return []


def _without_activations(shown: Any) -> Any:
    def loss(params: Any, batch: Any) -> Any:
        value = shown(params, batch)
        return value[0] if isinstance(value, tuple) else value

    return loss


def _wide(x: Any) -> Any:
    """On the device; floats in float64."""
    array = np.asarray(x)
    return jax.numpy.asarray(array, dtype=np.float64 if jax.numpy.issubdtype(array.dtype, np.floating) else None)
