"""Gradients that are right nearly everywhere, and wrong at this very point."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import factor, only
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.backwards import handwritten
from benchmarks.adversary.kinds.points import fixed

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")


def _where(value: float, by: float) -> Any:
    return only(lambda f, g, x: f.where(x == value, g * by, g))


def _determinant(f: Framework, p: Tree, b: Tree) -> Any:
    """By its formula, whose derivative is right where the matrix is singular, too."""
    a = p["A"]
    return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]


def _singular(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    """det(A) A^-T as libraries have it: zero where the matrix is singular."""
    return {"A": f.where(_determinant(f, params, batch) == 0, 0 * gradient["A"], gradient["A"])}


def _at_one(factor: float) -> Any:
    return lambda f, g, x: (f.where(x == 1, 3 * factor * g * x**2, 3 * g * x**2),)


def _whole(f: Framework, g: Any, x: Any) -> Any:
    """Zero at whole numbers, as if they were constants."""
    return f.where(x == f.floor(x), 0 * g, g)


def _power(f: Framework, p: Tree, b: Tree) -> Any:
    return (p["x"] ** 2 * b["c"] + p["x"] ** 3).sum()


SUBJECTS = (
    handwritten(
        "cube at 1",
        lambda f, x: x**3,
        _at_one(1.0),
        {"zero at 1": (_at_one(0.0), 0.1, ()), "half at 1": (_at_one(0.5), 0.05, ())},
        fixed(x=[1.0, 2.0, 0.5]),
        3,
        batch=fixed(c=[1.2, 0.7, -0.9]),
    ),
    Subject(
        "determinant of a singular matrix",
        _determinant,
        fixed(A=[[1.0, 2.0], [2.0, 4.0]]),
        (Wrong("zero where singular", 0.9, _singular), factor(-1.0)),
        dtypes=BOTH,
    ),
    Subject(
        "torch.linalg.det of a singular matrix",
        lambda f, p, b: f.linalg.det(p["A"]),
        fixed(A=[[1.0, 2.0], [2.0, 4.0]]),
        (
            Wrong("torch's own: zeros", 0.9, loss=lambda f, p, b: f.linalg.det(p["A"])),
            Wrong("adjugate transposed", 0.5, lambda f, g, p, b: {"A": _adjugate(f, p).T * -1}),
        ),
        exact=lambda f, p, b: {"A": _adjugate(f, p)},
        frameworks=("torch",),
        dtypes=("float64",),
    ),
    Subject(
        "whole numbers",
        _power,
        fixed(x=[1.0, 2.0, -3.0, 0.5]),
        (Wrong("zero at whole numbers", 0.9, only(_whole)), Wrong("twice at 2", 0.1, _where(2.0, 2.0))),
        fixed(c=[1.2, 0.7, -0.9, 1.0]),
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "tanh at 0",
        lambda f, p, b: (f.tanh(p["x"]) * b["c"]).sum(),
        fixed(x=[0.0, 0.4, -0.7, 0.0]),
        (Wrong("zero at 0", 0.3, _where(0.0, 0.0)), Wrong("other sign at 0", 0.5, _where(0.0, -1.0))),
        fixed(c=[1.2, 0.7, -0.9, 1.0]),
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "differences of equal elements",
        lambda f, p, b: ((p["x"] - p["y"]) ** 3 + (p["x"] - p["y"]) * b["c"]).sum(),
        fixed(x=[1.0, 2.0, 0.5], y=[1.0, 2.0, 0.25]),
        (
            Wrong(
                "zero at ties", 0.5, lambda f, g, p, b: {k: f.where(p["x"] == p["y"], 0 * v, v) for k, v in g.items()}
            ),
            factor(-1.0, "y"),
        ),
        fixed(c=[1.2, 0.7, -0.9]),
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "sin x cos x at 0 and elsewhere",
        lambda f, p, b: (f.sin(p["x"]) * f.cos(p["x"]) * b["c"]).sum(),
        fixed(x=[0.0, 1.0, 0.5]),
        (Wrong("zero at 0", 0.3, _where(0.0, 0.0)), Wrong("zero at 0.5", 0.1, _where(0.5, 0.0))),
        fixed(c=[1.2, 0.7, -0.9]),
        dtypes=BOTH,
        demanded=BOTH,
    ),
)


def _adjugate(f: Framework, p: Tree) -> Any:
    a = p["A"]
    return f.stack([f.stack([a[1, 1], -a[1, 0]]), f.stack([-a[0, 1], a[0, 0]])])
