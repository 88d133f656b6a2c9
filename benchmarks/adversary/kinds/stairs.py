"""Iterations that stop at a tolerance: the loss is a staircase, and the right gradient the implicit function's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import factor, left_out, replaced, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal, uniform

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")


def _bisected(f: Framework, below: Callable[[Any], Any], low: Any, width: float, steps: int) -> Any:
    """The place where `below` ends to be true, from `low` up to `low + width`, to width / 2**steps."""
    for _ in range(steps):
        width = width / 2
        low = f.where(below(low + width), low + width, low)
    return low


def _centred(steps: int) -> Callable[[Framework, Tree, Tree], Any]:
    """x - tau with sum 0, as a projection to a simplex finds it."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        x = p["x"]
        tau = _bisected(f, lambda t: (x - t).sum() >= 0, f.detach(f.amax(x, 0)) - 10, 10.0, steps)
        return ((x - tau) * b["c"]).sum()

    return loss


def _centre_gradient(f: Framework, p: Tree, b: Tree) -> Tree:
    return {"x": b["c"] - b["c"].mean()}


def _root(steps: int, power: int) -> Callable[[Framework, Tree, Tree], Any]:
    """The power-th root by bisection."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        x = p["x"]
        return (_bisected(f, lambda y: y**power <= x, 0 * x, 4.0, steps) * b["c"]).sum()

    return loss


def _root_gradient(power: int) -> Callable[[Framework, Tree, Tree], Tree]:
    return lambda f, p, b: {"x": b["c"] * p["x"] ** (1 / power - 1) / power}


def _fixed_point(tolerance: float) -> Callable[[Framework, Tree, Tree], Any]:
    """y = 0.4 cos(y) + x, iterated until it moves less than the tolerance."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        y = 0 * p["x"]
        for _ in range(36):
            further = 0.4 * f.cos(y) + p["x"]
            y = f.where(abs(further - y) > tolerance, further, y)
        return (y * b["c"]).sum()

    return loss


def _fixed_point_gradient(times: int | None = None) -> Callable[[Framework, Tree, Tree], Tree]:
    """1 / (1 + 0.4 sin y): the geometric series of it, or its first terms."""

    def gradient(f: Framework, p: Tree, b: Tree) -> Tree:
        y = 0 * p["x"]
        for _ in range(80):
            y = 0.4 * f.cos(y) + p["x"]
        ratio = -0.4 * f.sin(y)
        return {"x": b["c"] * (1 / (1 - ratio) if times is None else sum(ratio**k for k in range(times)))}

    return gradient


def _newton(tolerance: float) -> Callable[[Framework, Tree, Tree], Any]:
    """y + exp(y) = x by Newton's method, each element until its residual is below the tolerance."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        y = 0 * p["x"]
        for _ in range(12):
            residual = y + f.exp(y) - p["x"]
            y = f.where(abs(residual) > tolerance, y - residual / (1 + f.exp(y)), y)
        return (y * b["c"]).sum()

    return loss


def _newton_gradient(f: Framework, p: Tree, b: Tree) -> Tree:
    y = 0 * p["x"]
    for _ in range(30):
        y = y - (y + f.exp(y) - p["x"]) / (1 + f.exp(y))
    return {"x": b["c"] / (1 + f.exp(y))}


# stopped early, on teeth that are wide: the loss is what it computes, and its gradient that of the steps taken
LOOSE = (1e-5, "unrolled", None)
SUBJECTS = (
    *(
        Subject(
            f"sum made 0 by bisection, {steps} steps",
            _centred(steps),
            normal(x=6),
            (
                replaced("gradient of the tooth", lambda f, p, b: {"x": b["c"]}, 0.1),
                zeros(),
                factor(1.05),
                factor(-1.0),
                left_out("x"),
            ),
            normal(1.0, 0.5, c=6),
            exact=_centre_gradient,
            dtypes=BOTH,
        )
        for steps in (18, 25, 32)
    ),
    *(
        Subject(
            f"root {power} by bisection, {steps} steps",
            _root(steps, power),
            uniform(0.3, 2.5, x=5),
            (zeros(), factor(1.05), factor(float(power))),
            uniform(0.5, 1.5, c=5),
            exact=_root_gradient(power),
            dtypes=BOTH,
        )
        for steps, power in ((22, 2), (28, 3))
    ),
    *(
        Subject(
            f"fixed point to {tolerance:g}, {whose}",
            _fixed_point(tolerance),
            normal(x=5),
            (
                replaced("one step back", _fixed_point_gradient(1), 0.1),
                replaced("two steps back", _fixed_point_gradient(2), 0.02),
                zeros(),
                factor(1.05),
            ),
            uniform(0.5, 1.5, c=5),
            exact=exact,
            dtypes=BOTH,
        )
        for tolerance, whose, exact in ((1e-13, "implicit", _fixed_point_gradient()), LOOSE)
    ),
    *(
        Subject(
            f"Newton to {tolerance:g}, {whose}",
            _newton(tolerance),
            normal(1.0, 1.0, x=5),
            (
                Wrong("derivative left out", 0.3, lambda f, g, p, b: {"x": b["c"] + 0 * g["x"]}),
                zeros(),
                factor(1.05),
                factor(-1.0),
            ),
            uniform(0.5, 1.5, c=5),
            exact=exact,
            dtypes=BOTH,
        )
        for tolerance, whose, exact in ((1e-13, "implicit", _newton_gradient), LOOSE)
    ),
)
