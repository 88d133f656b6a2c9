"""Tensors that a loss depends on beside its leaves, and that require a gradient: those it closes over, whose gradient
nobody would verify, and those it makes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

__all__ = ["named", "others_in", "warn_of_closed_over"]

Tensors = Sequence[torch.Tensor]


def others_in(loss: torch.Tensor, leaves: Collection[torch.Tensor]) -> list[torch.Tensor]:
    """The leaf tensors to which `loss.backward()` would add, beside these."""
    given = {id(leaf) for leaf in leaves}
    return [x for x in _accumulating(loss) if id(x) not in given]


def named(others: Tensors, function: Any) -> str:
    """The first three of these tensors as the user's loss calls them, or by shape, on one line.

    function: the loss, in whose closure and globals their names are looked for.
    """
    names = _names(function) if callable(function) else {}
    described = [names.get(id(x), f"a tensor of shape {tuple(x.shape)}") for x in others]
    more = f" and {len(described) - 3} more" if len(described) > 3 else ""
    return f"{', '.join(described[:3])}{more}"


def warn_of_closed_over(names: str) -> None:
    """Warn of what a loss depends on by autograd and that is none of the leaves it was given."""
    warnings.warn(
        f"the loss reads {names}: it requires a gradient and is not in params, so its gradient is not verified. Put it "
        "into params, or detach it.",
        stacklevel=2,
    )


def _accumulating(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """The leaf tensors to which a backward pass would add."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(successor for successor, _ in node.next_functions)


def _names(function: Callable[..., Any]) -> dict[int, str]:
    """By id, what a function calls the tensors, and the parameters of modules, that it refers to."""
    try:
        found = inspect.getclosurevars(inspect.unwrap(function))
    except TypeError:  # a callable object, a builtin
        return {}
    names: dict[int, str] = {}
    for name, value in {**found.globals, **found.nonlocals}.items():
        if isinstance(value, torch.nn.Module):
            names |= {id(x): f"{name}.{own}" for own, x in value.named_parameters()}
        elif isinstance(value, torch.Tensor):
            names[id(value)] = name
    return names
