"""Parameters from which nothing leads to the loss: zeros and None are right, and anything else is wrong."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import added, left_out
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

INFINITY = float("inf")
BOTH = ("float64", "float32")


def _without_bias(f: Framework, p: Tree, b: Tree) -> Any:
    return ((b["x"] @ p["w"].T - b["y"]) ** 2).mean()


def _zeros(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    return {**gradient, "b": 0 * params["b"]}


def _omitted(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    return {k: g for k, g in gradient.items() if k != "b"}


SUBJECTS = (
    Subject(
        "bias not used",
        _without_bias,
        normal(w=(4, 3), b=4),
        (added(1.0, "b", off=INFINITY), added(0.05, "b", off=INFINITY), left_out("w")),
        normal(x=(6, 3), y=(6, 4)),
        dtypes=BOTH,
        demanded=BOTH,
        rights={"zeros": _zeros, "left out": _omitted},
    ),
    Subject(
        "zero times the bias",
        lambda f, p, b: _without_bias(f, p, b) + 0 * p["b"].sum(),
        normal(w=(4, 3), b=4),
        (added(1.0, "b", off=INFINITY),),
        normal(x=(6, 3), y=(6, 4)),
        dtypes=BOTH,
        demanded=BOTH,
        rights={"left out": _omitted},
    ),
    Subject(
        "nothing is used",
        lambda f, p, b: f.tanh(b["c"]).mean() + 0 * p["w"].sum(),
        normal(w=(4, 3), b=4),
        (added(1.0, "b", off=INFINITY), added(1.0, "w", off=INFINITY)),
        normal(c=8),
        dtypes=BOTH,
        rights={"zeros": _zeros, "left out": _omitted},
    ),
)
