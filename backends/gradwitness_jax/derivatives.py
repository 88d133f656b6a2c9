"""Further derivatives of a loss, as jax takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction, step
from gradwitness.lowering import Implementation
from gradwitness.problem import Derived
from gradwitness_jax.paths import one_number

__all__ = ["WAYS", "derived"]

Leaves = Mapping[str, Any]
Loss = Callable[[Leaves], Any]
Both = Callable[[Leaves], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class _Asked:
    """What a way is made of: the plain loss, the leaves to differentiate by, and those with an entry by example."""

    loss: Loss
    paths: Sequence[str]
    single: Sequence[str]

    def of(self, leaves: Leaves) -> Callable[[Leaves], Any]:
        """The loss as a function of what it is differentiated by."""
        return lambda given: one_number(self.loss({**leaves, **given}))

    def point(self, leaves: Leaves) -> dict[str, Any]:
        return {path: leaves[path] for path in self.paths}

    def along(self, leaves: Leaves) -> dict[str, Any]:
        return {path: leaves[direction(path)] for path in self.paths}


@dataclass(frozen=True)
class _Way:
    """How a derivative is taken: as the gradient of a loss of leaves, or as value and gradient at once (`both`)."""

    loss: Callable[[_Asked], Loss]
    both: Callable[[_Asked], Both] | None = None


def derived(implementation: Implementation, asked: Derived, wrt: Sequence[str]) -> Implementation:
    """The implementation of a further derivative. wrt: the leaves that the derivative is by."""
    paths = [path for path in asked.problem.differentiated if path in implementation.reaching]
    way, given = WAYS[asked.way], _Asked(implementation.loss, paths, asked.problem.by_example)
    changed = replace(implementation, loss=_able(way.loss(given)), reaching=tuple(wrt))
    return changed if way.both is None else replace(changed, value_and_gradient=_able(way.both(given)))


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


# Products with the Hessian


def _twice(asked: _Asked) -> Loss:
    """The product of the gradient with the direction."""
    return lambda leaves: _product(jax.grad(asked.of(leaves))(asked.point(leaves)), asked.along(leaves))


def _forward(asked: _Asked) -> Loss:
    """By jax.jvp."""
    return lambda leaves: jax.jvp(asked.of(leaves), (asked.point(leaves),), (asked.along(leaves),))[1]


def _of_backward(asked: _Asked) -> Both:
    """The gradient, by jax.grad, and its derivative along the direction, by jax.jvp."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        along = asked.along(leaves)
        found, moved = jax.jvp(jax.grad(asked.of(leaves)), (asked.point(leaves),), (along,))
        return _product(found, along), moved

    return both


def _hessian(asked: _Asked) -> Both:
    """The whole Hessian, by jax.hessian, times the direction."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        loss, point, along = asked.of(leaves), asked.point(leaves), asked.along(leaves)
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


def _moved(asked: _Asked, leaves: Leaves) -> dict[str, Any]:
    """What the loss is differentiated by, after the steps along its directions."""
    return {path: leaves[path] + jnp.tensordot(leaves[step(path)], leaves[direction(path)], 1) for path in asked.paths}


def _stepped(asked: _Asked) -> Loss:
    return lambda leaves: asked.of(leaves)(_moved(asked, leaves))


def _jvp(asked: _Asked) -> Both:
    """By jax.jvp, along one direction of one leaf after another."""

    @jax.jit
    def slope(leaves: Leaves, point: Leaves, along: Leaves) -> Any:
        return jax.jvp(asked.of(leaves), (point,), (along,))[1]

    return _along_each(asked, lambda leaves, point: lambda along: slope(leaves, point, along))


def _linearize(asked: _Asked) -> Both:
    """By jax.linearize, once for all directions."""
    return _along_each(asked, lambda leaves, point: jax.jit(jax.linearize(asked.of(leaves), point)[1]))


def _along_each(asked: _Asked, derivative: Callable[[Leaves, Leaves], Callable[[Leaves], Any]]) -> Both:
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


def _vjp(asked: _Asked) -> Both:
    """By jax.vjp."""

    @jax.jit
    def both(leaves: Leaves) -> tuple[Any, dict[str, Any]]:
        value, pull = jax.vjp(asked.of(leaves), asked.point(leaves))
        return value, pull(jnp.ones_like(value))[0]

    return both


# Gradients by example


def _examples(asked: _Asked) -> Loss:
    """The sum of the losses of examples, each as a batch of one, at its own copy of the params."""

    def total(leaves: Leaves) -> Any:
        losses = []
        for number in range(len(leaves[asked.single[0]])):
            alone = {path: leaves[path][number : number + 1] for path in asked.single}
            own = {path: leaves[path][number] for path in asked.paths}
            losses.append(one_number(asked.loss({**leaves, **alone, **own})))
        return jnp.stack(losses).sum()

    return total


def _vmap(asked: _Asked) -> Both:
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


WAYS: Mapping[str, _Way] = {
    "twice": _Way(_twice),
    "through jvp": _Way(_forward),
    "by jvp": _Way(_twice, _of_backward),
    "jax.hessian": _Way(_twice, _hessian),
    "jax.jvp": _Way(_stepped, _jvp),
    "jax.linearize": _Way(_stepped, _linearize),
    "jax.vjp": _Way(lambda asked: lambda leaves: asked.of(leaves)(asked.point(leaves)), _vjp),
    "one by one": _Way(_examples),
    "vmap": _Way(_examples, _vmap),
}
