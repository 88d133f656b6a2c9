"""Derivatives of a loss along a direction, and their gradients, as jax takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction
from gradwitness.lowering import Implementation
from gradwitness_jax.paths import one_number

__all__ = ["directional"]

Leaves = Mapping[str, Any]
Loss = Callable[[Leaves], Any]


def directional(implementation: Implementation, wrt: Sequence[str], way: str) -> Implementation:
    """The implementation of the derivative along the leaves `direction(path)`."""
    loss, paths = implementation.loss, [path for path in wrt if path in implementation.reaching]
    if way == "by jvp":
        both = _able(_of_backward(loss, paths))
        return replace(implementation, loss=_able(_twice(loss, paths)), value_and_gradient=both)
    along = {"through jvp": _forward, "twice": _twice}[way]
    return replace(implementation, loss=_able(along(loss, paths)))


def _able(function: Callable[[Leaves], Any]) -> Callable[[Leaves], Any]:
    """The same, and an UnsupportedError where jax cannot: not every loss with a gradient has this derivative."""

    @wraps(function)
    def able(leaves: Leaves) -> Any:
        try:
            return function(leaves)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise UnsupportedError(f"jax cannot differentiate it in this way: {first}") from error

    return able


def _twice(loss: Loss, paths: Sequence[str]) -> Loss:
    """The product of the gradient with the direction."""

    def along(leaves: Leaves) -> Any:
        point, v = _point(leaves, paths)
        return _product(jax.grad(_of(loss, leaves))(point), v)

    return along


def _forward(loss: Loss, paths: Sequence[str]) -> Loss:
    """By jax.jvp."""

    def along(leaves: Leaves) -> Any:
        point, v = _point(leaves, paths)
        return jax.jvp(_of(loss, leaves), (point,), (v,))[1]

    return along


def _of_backward(loss: Loss, paths: Sequence[str]) -> Callable[[Leaves], tuple[Any, dict[str, Any]]]:
    """Value and gradient at once: the gradient, by jax.grad, and its derivative along the direction, by jax.jvp."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        point, v = _point(leaves, paths)
        found, moved = jax.jvp(jax.grad(_of(loss, leaves)), (point,), (v,))
        return _product(found, v), moved

    return both


def _product(one: Leaves, other: Leaves) -> Any:
    return jnp.stack([jnp.sum(one[path] * other[path]) for path in one]).sum()


def _of(loss: Loss, leaves: Leaves) -> Callable[[Leaves], Any]:
    return lambda given: one_number(loss({**leaves, **given}))


def _point(leaves: Leaves, paths: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {path: leaves[path] for path in paths}, {path: leaves[direction(path)] for path in paths}
