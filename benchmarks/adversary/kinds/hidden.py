"""A leaf whose gradient is given as zeros or None, beside leaves or constants that are much larger."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import factor, left_out, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.frameworks import dtype_name as name_of
from benchmarks.adversary.kinds.points import fixed, normal

__all__ = ["SUBJECTS"]

HIDDEN = (zeros("b"), left_out("b"), factor(-1.0, "b"))


def _beside(slope: float, offset: float) -> Any:
    return lambda f, p, b: offset + p["a"].sum() + slope * f.sin(p["b"])[0]


def _float32(f: Framework, p: Tree, b: Tree) -> Any:
    narrow = {k: f.cast(v, "float32") for k, v in (p | b).items()}
    value = ((narrow["x"] @ narrow["w"]) ** 2).mean() + 1e-4 * narrow["b"].sum()
    return f.cast(value, name_of(p["w"]))


def _many(f: Framework, p: Tree, b: Tree) -> Any:
    return sum(100.0 * f.sin(p[f"a{k}"]).sum() for k in range(8)) + 0.05 * f.tanh(p["b"]).sum()


def _perceptron(f: Framework, p: Tree, b: Tree) -> Any:
    """The weight's inputs are a thousand times those of the bias."""
    return (f.sin(1000 * (b["x"] @ p["w"]) * 1e-3) * 100 + p["b"]).mean() * 10


def _draw_many(generator: np.random.Generator) -> Tree:
    return {**{f"a{k}": generator.normal(size=50) for k in range(8)}, "b": generator.normal(size=3)}


SUBJECTS = (
    *(
        Subject(
            f"slope {slope:g} beside 1, loss + {offset:g}",
            _beside(slope, offset),
            fixed(a=[0.3, 0.7], b=[0.5]),
            HIDDEN,
        )
        for slope, offset in ((3e-3, 1e9), (1e-3, 3e8), (1e-2, 1e6), (1e-4, 0.0))
    ),
    Subject(
        "slope 1e-4 of a loss in float32",
        _float32,
        lambda generator: {"w": generator.normal(size=(3, 2)) * 10, "b": np.ones(2)},
        HIDDEN,
        normal(x=(8, 3)),
        dtypes=("float64", "float32"),
    ),
    Subject("one small leaf of nine", _many, _draw_many, (*HIDDEN, factor(1.05, "b")), dtypes=("float64", "float32")),
    Subject(
        "a bias beside large weights",
        _perceptron,
        normal(w=(5, 4), b=4),
        HIDDEN,
        normal(x=(6, 5)),
        dtypes=("float64", "float32"),
        demanded=("float64", "float32"),
    ),
)
