"""Elements at 1e-8 to 1e-12, beside a pole or the edge of the domain, among ordinary ones."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import elements, factor, only
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import near, uniform, weighted

__all__ = ["SUBJECTS"]

FUNCTIONS = {
    "1 / x": (lambda f, x: 1 / x, 1.0),
    "log": (lambda f, x: f.log(x), 1.0),
    "sqrt": (lambda f, x: f.sqrt(x), 0.5),
    "x log x": (lambda f, x: x * f.log(x), 0.2),
}
TEN = range(1, 11)


def _clamped(f: Framework, g: Any, x: Any) -> Any:
    """As with a denominator kept away from 0: slopes of the elements below 1e-3 are a hundredth."""
    return f.where(x < 1e-3, g / 100, g)


def _wrongs(n: int, dominates: bool, others: bool) -> tuple[Wrong, ...]:
    """off is relative to the leaf, in which the one element may be nearly all."""
    first = 0.5 if dominates else 0.02
    found = [
        elements([0], -1.0, leaf="x", off=first, name="sign of the small element"),
        Wrong("small element a hundredth", first / 2, only(_clamped)),
        factor(1.05),
    ]
    if others:
        found.append(elements(TEN, -1.0, leaf="x", off=0.0, name="ten others have the other sign"))
    return tuple(found)


def _log_that_raises(f: Framework, p: Tree, b: Tree) -> Any:
    """As libraries that check their arguments: off the domain there is an error, and no NaN."""
    if not bool((p["x"] > 0).all()):
        raise ValueError("the logarithm of a negative number")
    return (f.log(p["x"]) * b["c"]).sum()


RAISING = tuple(
    Subject(
        f"log that raises off its domain at {value:g}",
        _log_that_raises,
        near(value, 4),
        (
            factor(1.05),
            elements([0], -1.0, leaf="x", off=0.1),
            elements([2], -1.0, leaf="x", off=0.0, name="sign of the third"),
        ),
        uniform(0.5, 1.5, c=4),
        frameworks=("numpy", "torch"),
    )
    for value in (1e-3, 1e-6, 1e-9)
)
NEAR = tuple(
    Subject(
        f"{name} at {value:g}, {n:,}",
        weighted(function),
        near(value, n),
        _wrongs(n, dominates=slope > 0.4, others=n > 10 and name != "1 / x"),
        uniform(0.5, 1.5, c=n),
        frameworks=("numpy", "torch") if number % 2 else ("torch", "jax"),
        dtypes=("float64", "float32") if value == 1e-8 and n == 3 else ("float64",),
    )
    for number, (name, (function, slope)) in enumerate(FUNCTIONS.items())
    for value, n in ((1e-8, 3), (1e-10, 3), (1e-12, 3), (1e-9, 1000))
)
SUBJECTS = (*NEAR, *RAISING)
