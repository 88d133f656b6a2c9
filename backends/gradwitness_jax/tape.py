"""A forward pass that gives a tape, and a backward pass that consumes it: two programs, each compiled by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

__all__ = ["Backward", "Forward", "passes"]

Arrays = dict[str, jax.Array]
Forward = Callable[[Arrays, Arrays], Any]
Backward = Callable[[Any, jax.Array], dict[str, jax.Array]]


def passes(value: Callable[[Arrays, Arrays], jax.Array], *, dtype: Any, jit: bool) -> tuple[Forward, Backward]:
    """`forward(placed, inputs)`, a tape that owns its residuals, and `backward(tape, cotangent)`, the gradients by
    `placed`. Each gives the same for the same arguments, whatever was called before.

    What XLA simplifies across forward and backward, as log(exp(x)) to x, it cannot see here: beside `value_and_grad`
    compiled whole, results differ by rounding, and where something overflows on the way by more than that.
    dtype: of the cotangent, which may be another than that of the value: a loss in float32 of params in bfloat16.
    jit: compile both; without it, the tape is jax's own pullback. A compiled forward gives its residuals alone, as jax
    keeps for ever the structure of a pullback that leaves a compiled function.
    """

    def vjp(placed: Arrays, inputs: Arrays) -> Any:
        return jax.vjp(lambda p: value(p, inputs).astype(dtype), placed)[1]

    if not jit:
        return vjp, lambda tape, cotangent: tape(cotangent)[0]
    structures: dict[Any, Any] = {}  # by the shapes for which the forward was traced

    @jax.jit
    def forward(placed: Arrays, inputs: Arrays) -> list[jax.Array]:
        residuals, structures[_shapes(placed, inputs)] = jax.tree.flatten(vjp(placed, inputs))
        return residuals

    @cache
    def backward(shapes: Any) -> Callable[..., dict[str, jax.Array]]:
        @jax.jit
        def pull(residuals: list[jax.Array], cotangent: jax.Array) -> dict[str, jax.Array]:
            gradients: dict[str, jax.Array] = jax.tree.unflatten(structures[shapes], residuals)(cotangent)[0]
            return gradients

        return pull

    def taped(placed: Arrays, inputs: Arrays) -> Any:
        pull = backward(_shapes(placed, inputs))  # first, as XLA's threads fall asleep while Python works after a call
        return forward(placed, inputs), pull

    return taped, lambda tape, cotangent: tape[1](tape[0], cotangent)


def _shapes(*leaves: Arrays) -> tuple[Any, ...]:
    """Their keys and dtypes are always the same, and jax sorts the keys as it traces."""
    return tuple([group[path].shape for group in leaves for path in sorted(group)])
