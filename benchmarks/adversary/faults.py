"""Ways of being wrong that any gradient has: each gives back a Wrong with what it is off by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Wrong
from benchmarks.adversary.frameworks import Framework, Tree

__all__ = ["added", "cancelled", "elements", "factor", "left_out", "only", "replaced", "zeros"]


def only(change: Callable[[Framework, Any, Any], Any], *leaves: str) -> Callable[[Framework, Tree, Tree, Tree], Tree]:
    """A change of some leaves, `change(f, gradient, parameter)`; of all, if none is named."""

    def of(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
        return {k: change(f, g, params[k]) if k in (leaves or (k,)) else g for k, g in gradient.items()}

    return of


def factor(by: float, *leaves: str, **options: Any) -> Wrong:
    """The gradient times a constant."""
    name = f"{_of(leaves)}times {by:.9g}"
    return Wrong(name, abs(by - 1) * (1 - 1e-6), only(lambda f, g, x: g * by, *leaves), leaves=leaves, **options)


def zeros(*leaves: str, off: float = 1.0, **options: Any) -> Wrong:
    """Zeros for whole leaves."""
    return Wrong(
        f"{_of(leaves)}zeros", off * (1 - 1e-6), only(lambda f, g, x: g * 0, *leaves), leaves=leaves, **options
    )


def left_out(*leaves: str, **options: Any) -> Wrong:
    """Leaves that the gradient does not give, which counts as None."""

    def change(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
        return {k: g for k, g in gradient.items() if k not in leaves}

    return Wrong(f"{_of(leaves)}left out", 1 - 1e-6, change, leaves=leaves, **options)


def elements(places: Sequence[int], by: float, *, leaf: str, off: float, name: str = "", **options: Any) -> Wrong:
    """Single elements, by flat index, times a constant."""

    def change(f: Framework, g: Any, x: Any) -> Any:
        mask = np.ones(int(np.prod(tuple(x.shape), dtype=int)))
        mask[list(places)] = by
        return g * f.constant(mask.reshape(tuple(x.shape)), g)

    said = name or f"{len(places)} elements of {leaf} times {by:g}"
    return Wrong(said, off * (1 - 1e-6), only(change, leaf), leaves=(leaf,), **options)


def added(amount: float, leaf: str, *, off: float, **options: Any) -> Wrong:
    """A constant at every element."""
    return Wrong(f"{leaf} plus {amount:g}", off, only(lambda f, g, x: g + amount, leaf), leaves=(leaf,), **options)


def cancelled(by: float, large: float, *leaves: str, **options: Any) -> Wrong:
    """(g * by + large * x) - large * x: a wrong factor behind a cancellation of the candidate's own."""
    name = f"{_of(leaves)}times {by:g} behind {large:g} x - {large:g} x"

    def change(f: Framework, g: Any, x: Any) -> Any:
        return (g * by + large * x) - large * x

    # what the cancellation itself loses may make up for some of the factor
    return Wrong(name, abs(by - 1) / 3, only(change, *leaves), leaves=leaves, **options)


def replaced(
    name: str, gradient: Callable[[Framework, Tree, Tree], Tree], off: float, *leaves: str, **options: Any
) -> Wrong:
    """The gradients of some leaves by another formula, `gradient(f, params, batch)`."""

    def change(f: Framework, right: Tree, params: Tree, batch: Tree) -> Tree:
        return {**right, **gradient(f, params, batch)}

    return Wrong(name, off, change, leaves=leaves, **options)


def _of(leaves: Sequence[str]) -> str:
    return f"{', '.join(leaves)} " if leaves else ""
