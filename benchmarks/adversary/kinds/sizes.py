"""Leaves of 1 to 1,000,000 elements, in smooth losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Change, Subject, Wrong
from benchmarks.adversary.faults import elements, factor, only, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal, weighted

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")
LARGE = 10_000


def _part(n: int, share: float, by: float) -> Change:
    """The last elements, so many of them, times a factor."""

    def change(f: Framework, g: Any, x: Any) -> Any:
        mask = np.ones(n)
        mask[n - max(1, round(n * share)) :] = by
        return g * f.constant(mask, g)

    return only(change)


def _shifted(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    """Each element has its neighbour's: an index off by one."""
    return {"x": f.roll(gradient["x"], 1)}


def _wrongs(n: int) -> tuple[Wrong, ...]:
    found = [factor(1.01), zeros()]
    if n > 1:
        found += [Wrong("last tenth is zero", 0.05, _part(n, 0.1, 0.0)), Wrong("index off by one", 0.3, _shifted)]
    if 1 < n < LARGE:
        found += [elements([n // 2], 1.01, leaf="x", off=1e-5, dtypes=("float64",))]
    if n > 1000:
        found += [Wrong("a hundredth has the other sign", 0.1, _part(n, 0.01, -1.0))]
    return tuple(found)


def _frameworks(n: int) -> tuple[str, ...]:
    return ("torch",) if n > 200_000 else ("numpy", "torch", "jax")


def _square(f: Framework, p: Tree, b: Tree) -> Any:
    return ((f.tanh(p["x"]) - b["c"]) ** 2).mean()


SUBJECTS = tuple(
    Subject(
        f"{name}, {n:,}",
        loss,
        normal(x=n),
        _wrongs(n)[: 2 if n > 200_000 and name != "sines" else None],
        normal(c=n),
        frameworks=_frameworks(n),
        dtypes=BOTH if n <= 1000 else ("float32",) if name == "sines" else ("float64",),
        demanded=BOTH if n <= 1000 else (),
    )
    for name, loss in (("sines", weighted(lambda f, x: f.sin(x))), ("mean square", _square))
    for n in (1, 3, 33, 1000, 100_000, 1_000_000)
)
