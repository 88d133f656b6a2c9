"""A lowered loss with its arrays on a jax device, differentiated and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwitness.graph import Graph
from gradwitness.problem import Problem
from gradwitness.protocol import Array, Primals
from gradwitness_jax.quiet import quiet

__all__ = ["JaxPrepared"]

Arrays = dict[str, jax.Array]
Tape = Any  # the pullback of one forward pass: a pytree that holds its residuals


class JaxPrepared:
    """A candidate whose loss is `loss(leaves)`.

    Every call enters x64 anew: a function compiled under it and called outside retraces to float32.
    """

    setup_seconds = 0.0

    def __init__(
        self, loss: Callable[[Mapping[str, Any]], Any], graph: Graph, problem: Problem, *, dtype: str, device: str
    ) -> None:
        self._dtype, self._wide = jnp.dtype(dtype), dtype == "float64"
        self._host = np.float64 if self._wide else np.float32
        self._device = jax.devices("gpu" if device == "cuda" else device)[0]
        self._paths = problem.differentiated
        self._reaching = [path for path in self._paths if path in graph.leaves]
        with self._x64():
            self._constants = {path: self._put(a) for path, a in problem.inputs(graph).items()}
            self._one = self._put(np.ones(()))
        self._compile(loss)
        self.value_and_gradient(problem.primals)
        self._warm = False

    def _compile(self, loss: Callable[[Mapping[str, Any]], Any]) -> None:
        def value(placed: Arrays, constants: Arrays) -> jax.Array:
            scalar: jax.Array = loss({**constants, **placed}).reshape(())
            return scalar

        def vjp(placed: Arrays, constants: Arrays) -> Tape:
            return jax.vjp(lambda p: value(p, constants), placed)[1]

        self._value_and_grad = jax.jit(jax.value_and_grad(value))
        self._vjp = jax.jit(vjp)
        self._pull = jax.jit(lambda pullback, cotangent: pullback(cotangent)[0])

    def value(self, params: Primals) -> float:
        return self.value_and_gradient(params)[0]  # what is compiled already; the loss alone would compile again

    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]:
        with self._x64():
            value, gradient = self._value_and_grad(self._placed(params), self._constants)
            found = {path: np.array(g, dtype=self._host) for path, g in gradient.items()}
            return float(value), {path: found.get(path) for path in self._paths}

    def place(self, params: Primals) -> Arrays:
        """The leaves on the device. The first call compiles what is timed, and adds its seconds to the setup."""
        with self._x64():
            placed = self._placed(params)
        if not self._warm:
            started = time.perf_counter()
            with quiet():
                self.wait(self.backward(self.forward(placed)))
            self.setup_seconds += time.perf_counter() - started
            self._warm = True
        return placed

    def forward(self, placed: Arrays) -> Tape:
        with self._x64():
            return self._vjp(placed, self._constants)

    def backward(self, tape: Tape) -> Arrays:
        with self._x64():
            gradient: Arrays = self._pull(tape, self._one)
            return gradient

    def forward_backward(self, placed: Arrays) -> Arrays:
        with self._x64():
            gradient: Arrays = self._value_and_grad(placed, self._constants)[1]
            return gradient

    def wait(self, x: Any) -> None:
        jax.block_until_ready(x)

    def _x64(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = jax.enable_x64(self._wide)
        return context

    def _placed(self, params: Primals) -> Arrays:
        return {path: self._put(params[path]) for path in self._reaching}

    def _put(self, array: Array) -> jax.Array:
        """A copy on the device (jax may share a host array's memory): floats in the candidate's dtype."""
        dtype = self._dtype if array.dtype.kind == "f" else array.dtype
        placed: jax.Array = jax.device_put(np.array(array, dtype=dtype), self._device)
        return placed
