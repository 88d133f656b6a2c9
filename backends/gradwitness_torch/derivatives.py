"""Further derivatives of a loss, as torch takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch

from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction, step
from gradwitness.lowering import Implementation
from gradwitness.problem import Derived
from gradwitness_torch.paths import one_number
from gradwitness_torch.quiet import quiet

__all__ = ["WAYS", "derived"]

Leaves = Mapping[str, torch.Tensor]
Loss = Callable[[Leaves], torch.Tensor]
Both = Callable[[Leaves], tuple[torch.Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class _Asked:
    """What a way is made of: the plain loss, the leaves to differentiate by, and those with an entry by example."""

    loss: Loss
    paths: Sequence[str]
    single: Sequence[str]

    def of(self, leaves: Leaves) -> Callable[..., torch.Tensor]:
        """The loss as a function of what it is differentiated by, in order."""
        return lambda *given: one_number(self.loss({**leaves, **dict(zip(self.paths, given, strict=True))}))

    def point(self, leaves: Leaves) -> tuple[torch.Tensor, ...]:
        return tuple(leaves[path] for path in self.paths)

    def along(self, leaves: Leaves) -> tuple[torch.Tensor, ...]:
        return tuple(leaves[direction(path)] for path in self.paths)


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
    """The same, and an UnsupportedError where torch cannot: not every loss with a gradient has this derivative."""

    @wraps(function)
    def able(leaves: Leaves) -> Any:
        try:
            with quiet():  # torch.func.jvp warns when it is first called
                return function(leaves)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise UnsupportedError(f"torch cannot differentiate it in this way: {first}") from error

    return able


# Products with the Hessian


def _twice(asked: _Asked) -> Loss:
    """The product of the gradient with the direction, whose graph autograd keeps: double backward."""

    def along(leaves: Leaves) -> torch.Tensor:
        by = [_with_gradient(x) for x in asked.point(leaves)]
        with torch.enable_grad():
            value = asked.of(leaves)(*by)
            found = torch.autograd.grad(value, by, create_graph=True, allow_unused=True)
            parts = [(g * v).sum() for g, v in zip(found, asked.along(leaves), strict=True) if g is not None]
        return torch.stack(parts).sum() if parts else value * 0

    return along


def _slope(asked: _Asked) -> Loss:
    """The value of that alone."""
    twice = _twice(asked)
    return lambda leaves: twice(leaves).detach()


def _with_gradient(x: torch.Tensor) -> torch.Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def _forward(asked: _Asked) -> Loss:
    """By torch.func.jvp."""

    def along(leaves: Leaves) -> torch.Tensor:
        found: torch.Tensor = torch.func.jvp(asked.of(leaves), asked.point(leaves), asked.along(leaves))[1]
        return found

    return along


def _of_backward(asked: _Asked) -> Both:
    """The gradient, by torch.func.grad, and its derivative along the direction."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        gradient = torch.func.grad(asked.of(leaves), argnums=tuple(range(len(asked.paths))))
        point, along = tuple(x.detach() for x in asked.point(leaves)), asked.along(leaves)
        found, moved, *_ = torch.func.jvp(gradient, point, along)
        return _product(found, along), dict(zip(asked.paths, moved, strict=True))

    return both


def _hessian(transform: Callable[..., Any]) -> Callable[[_Asked], Both]:
    """The whole Hessian, times the direction."""

    def made(asked: _Asked) -> Both:
        def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
            loss, point, along = asked.of(leaves), tuple(x.detach() for x in asked.point(leaves)), asked.along(leaves)
            blocks = transform(loss, point)
            moved = [
                sum(torch.tensordot(block, v, dims=v.ndim) for block, v in zip(row, along, strict=True))
                for row in blocks
            ]
            found = torch.func.grad(loss, argnums=tuple(range(len(point))))(*point)
            return _product(found, along), dict(zip(asked.paths, moved, strict=True))

        return both

    return made


def _by_func(loss: Callable[..., Any], point: tuple[torch.Tensor, ...]) -> Any:
    return torch.func.hessian(loss, argnums=tuple(range(len(point))))(*point)


def _product(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(g * v).sum() for g, v in zip(one, other, strict=True)]).sum()


# Forward and reverse mode, as functions


def _moved(asked: _Asked, leaves: Leaves) -> dict[str, torch.Tensor]:
    """What the loss is differentiated by, after the steps along its directions."""
    found = {}
    for path in asked.paths:
        x, along, sizes = leaves[path], leaves[direction(path)], leaves[step(path)]
        found[path] = x + (along * sizes.reshape(-1, *(1 for _ in x.shape))).sum(0)
    return found


def _stepped(asked: _Asked) -> Loss:
    return lambda leaves: asked.of(leaves)(*_moved(asked, leaves).values())


def _jvp(asked: _Asked) -> Both:
    """By torch.func.jvp, along one direction of one leaf after another."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        loss, point = asked.of(leaves), {path: x.detach() for path, x in _moved(asked, leaves).items()}
        value, found = loss(*point.values()), {}
        for path in asked.paths:
            slopes = []
            for v in leaves[direction(path)]:
                along = tuple(v if other == path else torch.zeros_like(x) for other, x in point.items())
                slopes.append(torch.func.jvp(loss, tuple(point.values()), along)[1])
            found[step(path)] = torch.stack(slopes)
        return value, found

    return both


def _vjp(asked: _Asked) -> Both:
    """By torch.func.vjp."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        value, pull, *_ = torch.func.vjp(asked.of(leaves), *(x.detach() for x in asked.point(leaves)))
        return value, dict(zip(asked.paths, pull(torch.ones_like(value)), strict=True))

    return both


# Gradients by example


def _examples(asked: _Asked) -> Loss:
    """The sum of the losses of examples, each as a batch of one, at its own copy of the params."""

    def total(leaves: Leaves) -> torch.Tensor:
        losses = []
        for number in range(len(leaves[asked.single[0]])):
            alone = {path: leaves[path][number : number + 1] for path in asked.single}
            own = {path: leaves[path][number] for path in asked.paths}
            losses.append(one_number(asked.loss({**leaves, **alone, **own})))
        return torch.stack(losses).sum()

    return total


def _vmap(asked: _Asked) -> Both:
    """By torch.func.vmap of torch.func.grad."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        own = {path: leaves[path].detach() for path in asked.paths}
        single = {path: leaves[path] for path in asked.single}

        def loss(p: Leaves, example: Leaves) -> torch.Tensor:
            alone = {path: x[None] for path, x in example.items()}
            return one_number(asked.loss({**leaves, **alone, **p}))

        found, values = torch.func.vmap(torch.func.grad_and_value(loss))(own, single)
        return values.sum(), found

    return both


WAYS: Mapping[str, _Way] = {
    "twice": _Way(_twice),
    "through jvp": _Way(_forward),
    "by jvp": _Way(_slope, _of_backward),
    "torch.func.hessian": _Way(_slope, _hessian(_by_func)),
    "autograd.functional.hessian": _Way(_slope, _hessian(torch.autograd.functional.hessian)),
    "torch.func.jvp": _Way(_stepped, _jvp),
    "torch.func.vjp": _Way(lambda asked: lambda leaves: asked.of(leaves)(*asked.point(leaves)), _vjp),
    "one by one": _Way(_examples),
    "vmap": _Way(_examples, _vmap),
}
