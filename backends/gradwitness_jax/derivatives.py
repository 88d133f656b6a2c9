"""Further derivatives of a loss, as jax takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradwitness import ways
from gradwitness.graph import direction, step
from gradwitness.lowering import Implementation
from gradwitness.problem import Derived
from gradwitness.ways import Asked, Both, Leaves, Loss, Way
from gradwitness_jax.paths import one_number

__all__ = ["WAYS", "derived"]


def derived(implementation: Implementation, asked: Derived, wrt: Sequence[str]) -> Implementation:
    """The implementation of a further derivative. wrt: the leaves that the derivative is by."""
    return ways.derived("jax", WAYS[asked.way], implementation, asked, wrt)


def _of(asked: Asked, leaves: Leaves) -> Callable[[Leaves], Any]:
    """The loss as a function of what it is differentiated by."""
    return lambda given: one_number(asked.loss({**leaves, **given}))


# Products with the Hessian


def _twice(asked: Asked) -> Loss:
    """The product of the gradient with the direction."""
    return lambda leaves: _product(jax.grad(_of(asked, leaves))(asked.point(leaves)), asked.along(leaves))


def _forward(asked: Asked) -> Loss:
    """By jax.jvp."""
    return lambda leaves: jax.jvp(_of(asked, leaves), (asked.point(leaves),), (asked.along(leaves),))[1]


def _of_backward(asked: Asked) -> Both:
    """The gradient, by jax.grad, and its derivative along the direction, by jax.jvp."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        along = asked.along(leaves)
        found, moved = jax.jvp(jax.grad(_of(asked, leaves)), (asked.point(leaves),), (along,))
        return _product(found, along), moved

    return both


def _hessian(asked: Asked) -> Both:
    """The whole Hessian, by jax.hessian, times the direction."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        loss, point, along = _of(asked, leaves), asked.point(leaves), asked.along(leaves)
        blocks = jax.hessian(loss)(point)
        moved = {
            path: jnp.asarray(sum(jnp.tensordot(row[other], v, axes=v.ndim) for other, v in along.items()))
            for path, row in blocks.items()
        }
        return _product(jax.grad(loss)(point), along), moved

    return both


def _product(one: Leaves, other: Leaves) -> Any:
    return jnp.stack([jnp.sum(one[path] * other[path]) for path in one]).sum()


# Forward and reverse mode, as functions


def _moved(asked: Asked, leaves: Leaves) -> dict[str, Any]:
    """What the loss is differentiated by, after the steps along its directions."""
    return {path: leaves[path] + jnp.tensordot(leaves[step(path)], leaves[direction(path)], 1) for path in asked.paths}


def _stepped(asked: Asked) -> Loss:
    return lambda leaves: _of(asked, leaves)(_moved(asked, leaves))


def _jvp(asked: Asked) -> Both:
    """By jax.jvp, along one direction of one leaf after another."""

    @jax.jit
    def slope(leaves: Leaves, point: Leaves, along: Leaves) -> Any:
        return jax.jvp(_of(asked, leaves), (point,), (along,))[1]

    return _along_each(asked, lambda leaves, point: lambda along: slope(leaves, point, along))


def _linearize(asked: Asked) -> Both:
    """By jax.linearize, once for all directions."""
    return _along_each(asked, lambda leaves, point: jax.jit(jax.linearize(_of(asked, leaves), point)[1]))


def _along_each(asked: Asked, derivative: Callable[[Leaves, Leaves], Callable[[Leaves], Any]]) -> Both:
    """derivative: of leaves and the point, a function of the direction."""
    value = jax.jit(_stepped(asked))

    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        point, found = _moved(asked, leaves), {}
        slope = derivative(leaves, point)
        still = {path: jnp.zeros_like(x) for path, x in point.items()}
        for path in asked.paths:
            found[step(path)] = jnp.stack([slope({**still, path: v}) for v in leaves[direction(path)]])
        return value(leaves), found

    return both


def _vjp(asked: Asked) -> Both:
    """By jax.vjp."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        value, pull = jax.vjp(_of(asked, leaves), asked.point(leaves))
        return value, pull(jnp.ones_like(value))[0]

    return both


# Gradients by example


def _examples(asked: Asked) -> Loss:
    return ways.of_examples(asked, one_number, jnp.stack)


def _vmap(asked: Asked) -> Both:
    """By jax.vmap of jax.grad."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        def loss(own: Leaves, example: Leaves) -> Any:
            alone = {path: x[None] for path, x in example.items()}
            return one_number(asked.loss({**leaves, **alone, **own}))

        single = {path: leaves[path] for path in asked.single}
        values, found = jax.vmap(jax.value_and_grad(loss))(asked.point(leaves), single)
        return values.sum(), found

    return both


WAYS: Mapping[str, Way] = {
    "twice": Way(_twice),
    "through jvp": Way(_forward),
    "by jvp": Way(_twice, _of_backward),
    "jax.hessian": Way(_twice, _hessian),
    "jax.jvp": Way(_stepped, _jvp),
    "jax.linearize": Way(_stepped, _linearize),
    "jax.vjp": Way(lambda asked: lambda leaves: _of(asked, leaves)(asked.point(leaves)), _vjp),
    "one by one": Way(_examples),
    "vmap": Way(_examples, _vmap),
}
