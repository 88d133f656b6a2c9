"""Saturated and locally constant losses, and stationary points: the right gradient is zero, and the loss is not."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import added
from benchmarks.adversary.frameworks import Framework
from benchmarks.adversary.kinds.points import fixed, weighted

__all__ = ["SUBJECTS"]

INFINITY = float("inf")
BOTH = ("float64", "float32")


def _median_of(f: Framework, x: Any) -> Any:
    return f.where(x > 0, 1.5 + 0 * x, 0.25 + 0 * x)


POINTS = {
    "saturated softmax": (lambda f, x: f.softmax(x, -1), [2000.0, 0.0, 3.0]),
    "saturated sigmoid": (lambda f, x: f.sigmoid(x), [400.0, 900.0, 800.0]),
    "saturated tanh": (lambda f, x: f.tanh(x), [60.0, -70.0, 500.0]),
    "dead relu": (lambda f, x: f.relu(x) + 1, [-1.0, -0.3, -2.0]),
    "steps": (_median_of, [0.4, -0.3, 2.0]),
    "squares at 0": (lambda f, x: x * x + 1, [0.0, 0.0, 0.0]),
    "cosines at 0": (lambda f, x: f.cos(x), [0.0, 0.0, 0.0]),
    "clipped": (lambda f, x: f.where(x > 1, 1 + 0 * x, f.where(x < -1, 0 * x - 1, x)), [4.0, -3.0, 2.0]),
    "safe norm at 0": (lambda f, x: f.sqrt((x * x).sum() + 1e-2) + 0 * x, [0.0, 0.0, 0.0]),
}
SUBJECTS = tuple(
    Subject(
        name,
        weighted(function),
        fixed(x=point),
        tuple(added(amount, "x", off=INFINITY) for amount in (1.0, 0.05)),
        fixed(c=[1.3, 0.8, 1.1]),
        exact=lambda f, p, b: {"x": 0 * p["x"]},
        frameworks=("numpy", "torch", "jax") if number < 4 else ("numpy", "torch"),
        dtypes=BOTH,
    )
    for number, (name, (function, point)) in enumerate(POINTS.items())
)
