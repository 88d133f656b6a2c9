"""Further derivatives of a loss, as torch takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradwitness import ways
from gradwitness.graph import direction, step
from gradwitness.lowering import Implementation
from gradwitness.problem import Derived
from gradwitness.ways import Asked, Both, Leaves, Loss, Way
from gradwitness_torch.paths import one_number
from gradwitness_torch.quiet import quiet

__all__ = ["WAYS", "derived"]


def derived(implementation: Implementation, asked: Derived, wrt: Sequence[str]) -> Implementation:
    """The implementation of a further derivative. wrt: the leaves that the derivative is by."""
    return ways.derived("torch", WAYS[asked.way], implementation, asked, wrt, quiet=_able)


@contextmanager
def _able() -> Iterator[None]:
    """Without the warnings of torch.func.jvp's first call, and with the kernel of attention that has a forward mode."""
    with quiet(), sdpa_kernel(SDPBackend.MATH):
        yield


def _of(asked: Asked, leaves: Leaves) -> Callable[..., torch.Tensor]:
    """The loss as a function of what it is differentiated by, in order."""
    return lambda *given: one_number(asked.loss({**leaves, **dict(zip(asked.paths, given, strict=True))}))


def _point(asked: Asked, leaves: Leaves) -> tuple[torch.Tensor, ...]:
    return tuple(x.detach() for x in asked.point(leaves).values())


def _along(asked: Asked, leaves: Leaves) -> tuple[torch.Tensor, ...]:
    return tuple(asked.along(leaves).values())


# Products with the Hessian


def _twice(asked: Asked) -> Loss:
    """The product of the gradient with the direction, whose graph autograd keeps: double backward."""

    def along(leaves: Leaves) -> torch.Tensor:
        by = [_with_gradient(x) for x in asked.point(leaves).values()]
        with torch.enable_grad():
            value = _of(asked, leaves)(*by)
            found = torch.autograd.grad(value, by, create_graph=True, allow_unused=True)
            parts = [(g * v).sum() for g, v in zip(found, _along(asked, leaves), strict=True) if g is not None]
        return torch.stack(parts).sum() if parts else value * 0

    return along


def _slope(asked: Asked) -> Loss:
    """The value of that alone."""
    twice = _twice(asked)
    return lambda leaves: twice(leaves).detach()


def _with_gradient(x: torch.Tensor) -> torch.Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def _forward(asked: Asked) -> Loss:
    """By torch.func.jvp."""

    def along(leaves: Leaves) -> torch.Tensor:
        found: torch.Tensor = torch.func.jvp(
            _of(asked, leaves), tuple(asked.point(leaves).values()), _along(asked, leaves)
        )[1]
        return found

    return along


def _of_backward(asked: Asked) -> Both:
    """The gradient, by torch.func.grad, and its derivative along the direction."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        gradient = torch.func.grad(_of(asked, leaves), argnums=tuple(range(len(asked.paths))))
        point, along = _point(asked, leaves), _along(asked, leaves)
        found, moved, *_ = torch.func.jvp(gradient, point, along)
        return _product(found, along), dict(zip(asked.paths, moved, strict=True))

    return both


def _hessian(transform: Callable[..., Any]) -> Callable[[Asked], Both]:
    """The whole Hessian, times the direction."""

    def made(asked: Asked) -> Both:
        def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
            loss, point, along = _of(asked, leaves), _point(asked, leaves), _along(asked, leaves)
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


def _moved(asked: Asked, leaves: Leaves) -> dict[str, torch.Tensor]:
    """What the loss is differentiated by, after the steps along its directions."""
    found = {}
    for path in asked.paths:
        x, along, sizes = leaves[path], leaves[direction(path)], leaves[step(path)]
        found[path] = x + (along * sizes.reshape(-1, *(1 for _ in x.shape))).sum(0)
    return found


def _stepped(asked: Asked) -> Loss:
    return lambda leaves: _of(asked, leaves)(*_moved(asked, leaves).values())


def _jvp(asked: Asked) -> Both:
    """By torch.func.jvp, along one direction of one leaf after another."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        loss, point = _of(asked, leaves), {path: x.detach() for path, x in _moved(asked, leaves).items()}
        value, found = loss(*point.values()), {}
        for path in asked.paths:
            slopes = []
            for v in leaves[direction(path)]:
                along = tuple(v if other == path else torch.zeros_like(x) for other, x in point.items())
                slopes.append(torch.func.jvp(loss, tuple(point.values()), along)[1])
            found[step(path)] = torch.stack(slopes)
        return value, found

    return both


def _vjp(asked: Asked) -> Both:
    """By torch.func.vjp."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        value, pull, *_ = torch.func.vjp(_of(asked, leaves), *_point(asked, leaves))
        return value, dict(zip(asked.paths, pull(torch.ones_like(value)), strict=True))

    return both


# Gradients by example


def _examples(asked: Asked) -> Loss:
    return ways.of_examples(asked, one_number, torch.stack)


def _vmap(asked: Asked) -> Both:
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


WAYS: Mapping[str, Way] = {
    "twice": Way(_twice),
    "through jvp": Way(_forward),
    "by jvp": Way(_slope, _of_backward),
    "torch.func.hessian": Way(_slope, _hessian(_by_func)),
    "autograd.functional.hessian": Way(_slope, _hessian(torch.autograd.functional.hessian)),
    "torch.func.jvp": Way(_stepped, _jvp),
    "torch.func.vjp": Way(lambda asked: lambda leaves: _of(asked, leaves)(*asked.point(leaves).values()), _vjp),
    "one by one": Way(_examples),
    "vmap": Way(_examples, _vmap),
}
