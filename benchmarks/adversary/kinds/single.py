"""One or two wrong elements of many, off by more than 1% of the norm of their leaf: between any sampled coordinates."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Change, Subject, Wrong
from benchmarks.adversary.faults import elements, factor
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal, uniform, weighted

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")


def _swapped(first: int, second: int) -> Change:
    """Two elements have each other's."""

    def change(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
        g = gradient["x"]
        places = f.arange(g.shape[0])
        there = f.where(places == second, g[first], g)
        return {"x": f.where(places == first, g[second], there)}

    return change


def _root_sum(f: Framework, p: Tree, b: Tree) -> Any:
    return f.sqrt(1 + (b["c"] * p["x"] ** 2).sum())


# elements: (the factor of the one, what that is off by)
SIZES = {33: (-3.0, 0.1), 1000: (-3.0, 0.015), 20_000: (-30.0, 0.02)}
SUBJECTS = tuple(
    Subject(
        f"{name}, {n:,}",
        loss,
        normal(0.5, 1.0, x=n),
        (
            elements([n // 3], by, leaf="x", off=off, name=f"one times {by:g}"),
            elements([0, n - 1], by, leaf="x", off=off, name=f"first and last times {by:g}"),
            Wrong("two have each other's", 0.0, _swapped(n // 4, n // 2)),
            factor(0.99),
        )[: 4 if n < 1000 else 2],
        uniform(0.5, 1.5, c=n),
        dtypes=BOTH,
    )
    for name, loss in (("tanh", weighted(lambda f, x: f.tanh(x))), ("a norm", _root_sum))
    for n, (by, off) in SIZES.items()
)
