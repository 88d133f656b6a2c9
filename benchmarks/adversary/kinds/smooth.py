"""Losses that are smooth at the point and far around it: nothing excuses anything here."""

from __future__ import annotations

from typing import Any

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import elements, factor, left_out, replaced, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal, uniform, weighted

__all__ = ["SUBJECTS", "least_squares", "logistic"]

BOTH = ("float64", "float32")
TINY = factor(1 + 1e-6, dtypes=("float64",), frameworks=("numpy", "torch", "ops"))
ORDINARY = (factor(1.01), factor(1 + 1e-4), TINY, factor(-1.0))
ELEMENTWISE = {
    "exp": lambda f, x: f.exp(x),
    "sin": lambda f, x: f.sin(x),
    "tanh": lambda f, x: f.tanh(x),
    "log": lambda f, x: f.log(x),
    "sqrt": lambda f, x: f.sqrt(x),
    "sigmoid": lambda f, x: f.sigmoid(x),
    "softplus": lambda f, x: f.softplus(x),
    "reciprocal": lambda f, x: 1 / x,
    "rational": lambda f, x: x / (1 + x * x),
    "log of 1 + exp sin": lambda f, x: f.log(1 + f.exp(f.sin(3 * x))),
}


def least_squares(f: Framework, p: Tree, b: Tree) -> Any:
    return ((b["x"] @ p["w"].T + p["b"] - b["y"]) ** 2).mean()


def logistic(f: Framework, p: Tree, b: Tree) -> Any:
    z = b["x"] @ p["w"] + p["b"]
    return (f.softplus(z) - b["t"] * z).mean()


def _probabilities(f: Framework, p: Tree, b: Tree) -> Any:
    return -(b["t"] * f.log(f.softmax(b["x"] @ p["w"].T, -1))).sum()


def _bilinear(f: Framework, p: Tree, b: Tree) -> Any:
    return f.tanh(p["u"] @ p["m"] @ p["v"]).sum()


def _transposed(f: Framework, gradient: Tree, params: Tree, batch: Tree) -> Tree:
    return {**gradient, "m": gradient["m"].T}


def _first_row(f: Framework, p: Tree, b: Tree) -> Tree:
    """The whole batch is forgotten but for its first row."""
    return dict(f.gradient(least_squares)(p, {k: v[:1] for k, v in b.items()}))


SUBJECTS = (
    *(
        Subject(
            name,
            weighted(function),
            uniform(0.4, 1.8, x=7),
            (*ORDINARY[: 2 + number % 3], elements([3], 1.01, leaf="x", off=1e-4, dtypes=("float64",))),
            uniform(0.5, 1.5, c=7),
            dtypes=BOTH,
            demanded=BOTH,
        )
        for number, (name, function) in enumerate(ELEMENTWISE.items())
    ),
    Subject(
        "least squares",
        least_squares,
        normal(w=(4, 3), b=4),
        (
            factor(5 / 6, "b"),
            factor(0.5),
            TINY,
            zeros("b"),
            left_out("b"),
            elements([5], -1.0, leaf="w", off=0.02),
            replaced("first row of the batch", _first_row, 0.1),
        ),
        normal(x=(6, 3), y=(6, 4)),
        dtypes=BOTH,
        seeds=(0, 1),
        demanded=BOTH,
    ),
    Subject(
        "logistic regression",
        logistic,
        lambda generator: {"w": generator.normal(size=5), "b": generator.normal(size=())},
        (factor(1.01), factor(8.0, "b"), zeros("w"), left_out("b")),
        lambda generator: {"x": generator.normal(size=(8, 5)), "t": generator.uniform(size=8).round()},
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "cross-entropy of probabilities",
        _probabilities,
        normal(w=(5, 3)),
        (factor(1.01), factor(1 / 6), elements([0, 1, 2], 0.0, leaf="w", off=0.02, name="first class forgotten")),
        lambda generator: {"x": generator.normal(size=(6, 3)), "t": generator.dirichlet([1.0] * 5, size=6)},
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "bilinear form",
        _bilinear,
        normal(0.5, u=(2, 4), m=(4, 4), v=(4, 3)),
        (Wrong("m transposed", 0.1, _transposed, leaves=("m",)), factor(1.01, "u"), zeros("v")),
        dtypes=BOTH,
        demanded=BOTH,
    ),
)
