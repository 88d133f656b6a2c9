"""Leaves whose elements are of very different sizes: steps that suit one jump over the other's features."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import elements, factor
from benchmarks.adversary.frameworks import Framework
from benchmarks.adversary.kinds.points import fixed, weighted

__all__ = ["SUBJECTS"]


def _flat_at_zero(f: Framework, x: Any) -> Any:
    """exp(-1 / x), and 0 from 0 down: smooth everywhere."""
    return f.where(x > 0, f.exp(-1 / f.where(x > 0, x, 1 + 0 * x)), 0 * x)


# name: (function, point, the elements whose sign is turned round, what that is off by)
POINTS = {
    "1 / (1 + |x|)": (lambda f, x: 1 / (1 + abs(x)), [1e-10, 700.0], 0, 0.5),
    "1 / (1 + |x|), three": (lambda f, x: 1 / (1 + abs(x)), [-1e-9, 1e-6, 2000.0], 0, 0.5),
    "sigmoid": (lambda f, x: f.sigmoid(x), [0.3, 1e8, -2.0], 2, 0.1),
    "relu": (lambda f, x: f.relu(x), [1e-6, 500.0, 3.0], 0, 0.3),
    "softplus": (lambda f, x: f.softplus(x), [1.0, -2.0, 1e7], 1, 0.05),
    "log": (lambda f, x: f.log(x), [1e-6, 1.0, 30.0], 0, 0.5),
    "sin": (lambda f, x: f.sin(x), [1e-9, 0.5, 90.0], 0, 0.3),
    "tanh": (lambda f, x: f.tanh(x), [1e-7, 40.0, 1.0], 0, 0.5),
    "exp(-1/x)": (_flat_at_zero, [5.0, 1e10, 0.5], 2, 0.3),
    "reciprocal of 1 + x^2": (lambda f, x: 1 / (1 + x * x), [0.5, 1e6, -0.2], 2, 0.2),
}
SUBJECTS = tuple(
    Subject(
        f"{name} at {', '.join(f'{x:g}' for x in point)}",
        weighted(function),
        fixed(x=point),
        (
            elements([turned], -1.0, leaf="x", off=off),
            elements([turned], 0.0, leaf="x", off=off / 2),
            factor(1.05),
        ),
        fixed(c=[1.3, 0.8, 1.1][: len(point)]),
        frameworks=("numpy", "torch") if number % 2 else ("torch", "jax"),
        dtypes=("float64", "float32") if number % 3 == 0 else ("float64",),
    )
    for number, (name, (function, point, turned, off)) in enumerate(POINTS.items())
)
