"""Derivatives of a loss along a direction, and their gradients, as torch takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import torch

from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction
from gradwitness.lowering import Implementation
from gradwitness_torch.paths import one_number
from gradwitness_torch.quiet import quiet

__all__ = ["directional"]

Leaves = Mapping[str, torch.Tensor]
Loss = Callable[[Leaves], torch.Tensor]


def directional(implementation: Implementation, wrt: Sequence[str], way: str) -> Implementation:
    """The implementation of the derivative along the leaves `direction(path)`."""
    loss, paths = implementation.loss, [path for path in wrt if path in implementation.reaching]
    if way == "by jvp":
        both = _able(_of_backward(loss, paths))
        return replace(implementation, loss=_able(_detached(_twice(loss, paths))), value_and_gradient=both)
    along = {"through jvp": _forward, "twice": _twice}[way]
    return replace(implementation, loss=_able(along(loss, paths)))


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


def _twice(loss: Loss, paths: Sequence[str]) -> Loss:
    """The product of the gradient with the direction, whose graph autograd keeps: double backward."""

    def along(leaves: Leaves) -> torch.Tensor:
        by = {path: _with_gradient(leaves[path]) for path in paths}
        with torch.enable_grad():
            value = one_number(loss({**leaves, **by}))
            found = torch.autograd.grad(value, list(by.values()), create_graph=True, allow_unused=True)
            parts = [(g * leaves[direction(path)]).sum() for path, g in zip(paths, found, strict=True) if g is not None]
        return torch.stack(parts).sum() if parts else value * 0

    return along


def _detached(loss: Loss) -> Loss:
    """The value alone."""
    return lambda leaves: loss(leaves).detach()


def _with_gradient(x: torch.Tensor) -> torch.Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def _forward(loss: Loss, paths: Sequence[str]) -> Loss:
    """By torch.func.jvp."""

    def along(leaves: Leaves) -> torch.Tensor:
        found: torch.Tensor = torch.func.jvp(_of(loss, leaves, paths), *_point(leaves, paths))[1]
        return found

    return along


def _of_backward(loss: Loss, paths: Sequence[str]) -> Callable[[Leaves], tuple[torch.Tensor, dict[str, Any]]]:
    """Value and gradient at once: the gradient, by torch.func.grad, and its derivative along the direction."""

    def both(leaves: Leaves) -> tuple[torch.Tensor, dict[str, Any]]:
        gradient = torch.func.grad(_of(loss, leaves, paths), argnums=tuple(range(len(paths))))
        point, along = _point(leaves, paths)
        found, moved, *_ = torch.func.jvp(gradient, tuple(x.detach() for x in point), along)
        value = sum((g * v).sum() for g, v in zip(found, along, strict=True))
        return torch.as_tensor(value), dict(zip(paths, moved, strict=True))

    return both


def _of(loss: Loss, leaves: Leaves, paths: Sequence[str]) -> Callable[..., torch.Tensor]:
    return lambda *given: one_number(loss({**leaves, **dict(zip(paths, given, strict=True))}))


def _point(leaves: Leaves, paths: Sequence[str]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return tuple(leaves[path] for path in paths), tuple(leaves[direction(path)] for path in paths)
