"""Points at which losses are taken: what draws params and batch from a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Draw
from benchmarks.adversary.frameworks import Framework, Loss, Tree

__all__ = ["fixed", "near", "normal", "uniform", "weighted"]

Shape = int | tuple[int, ...]


def normal(scale: float = 1.0, offset: float = 0.0, **shapes: Shape) -> Draw:
    """Leaves of these shapes, normal with this scale and mean."""
    return lambda generator: {k: offset + scale * generator.normal(size=shape) for k, shape in shapes.items()}


def uniform(low: float, high: float, **shapes: Shape) -> Draw:
    return lambda generator: {k: generator.uniform(low, high, size=shape) for k, shape in shapes.items()}


def fixed(**leaves: float | Sequence[Any]) -> Draw:
    """These very numbers."""
    return lambda generator: {k: np.array(v, dtype=np.float64) for k, v in leaves.items()}


def near(value: float, n: int, low: float = 0.2, high: float = 1.0) -> Draw:
    """A leaf x of n elements between low and high, but for the first, which is this value."""

    def draw(generator: np.random.Generator) -> Tree:
        x = generator.uniform(low, high, size=n)
        x[0] = value
        return {"x": x}

    return draw


def weighted(function: Callable[[Framework, Any], Any]) -> Loss:
    """The sum of function(f, x), each element times its weight c of the batch."""
    return lambda f, p, b: (function(f, p["x"]) * b["c"]).sum()
