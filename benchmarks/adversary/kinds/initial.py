"""Points at which training begins: leaves of zeros, of tiny numbers and of ones, where a step has no scale to go by."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import added, elements, factor, left_out, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")
INFINITY = float("inf")


def _perceptron(f: Framework, p: Tree, b: Tree) -> Any:
    h = f.tanh(b["x"] @ p["w"].T + p["b"])
    return ((h @ p["v"].T + p["c"] - b["y"]) ** 2).mean()


def _perceptron_params(generator: np.random.Generator) -> Tree:
    weights = {"w": generator.normal(size=(6, 4)) / 2, "v": generator.normal(size=(3, 6)) / 2}
    return weights | {"b": np.zeros(6), "c": np.zeros(3)}


def _adapter(f: Framework, p: Tree, b: Tree) -> Any:
    """Low-rank adaptation: the second factor is zero, and so is the gradient of the first."""
    return (f.tanh(b["x"] @ (b["w"] + p["up"] @ p["down"]).T) ** 2 * b["c"]).mean()


def _adapter_params(generator: np.random.Generator) -> Tree:
    return {"down": generator.normal(size=(2, 4)), "up": np.zeros((5, 2))}


def _scaled_branch(f: Framework, p: Tree, b: Tree) -> Any:
    """A residual branch that is scaled by almost nothing."""
    h = b["x"] + p["scale"] * f.tanh(b["x"] @ p["w"].T)
    return (h**2 * b["c"]).mean()


def _branch_params(size: float) -> Any:
    return lambda generator: {"scale": np.full(4, size), "w": generator.normal(size=(4, 4))}


def _all_zero(f: Framework, p: Tree, b: Tree) -> Any:
    z = b["x"] @ p["w"].T + p["b"]
    return (f.log(f.exp(z).sum(-1)) - (z * b["t"]).sum(-1)).mean()


def _labelled(generator: np.random.Generator) -> Tree:
    return {"x": generator.normal(size=(6, 4)), "t": np.eye(3)[generator.integers(3, size=6)]}


def _zeros_of(**shapes: Any) -> Any:
    return lambda generator: {k: np.zeros(shape) for k, shape in shapes.items()}


SUBJECTS = (
    Subject(
        "biases of zero",
        _perceptron,
        _perceptron_params,
        (zeros("b"), left_out("c"), factor(5.0, "b"), factor(-1.0, "c"), elements([2], -1.0, leaf="b", off=0.05)),
        normal(x=(5, 4), y=(5, 3)),
        dtypes=BOTH,
        demanded=BOTH,
    ),
    Subject(
        "low-rank adapter",
        _adapter,
        _adapter_params,
        (zeros("up"), factor(1.05, "up"), factor(-1.0, "up"), added(0.05, "down", off=INFINITY)),
        normal(x=(5, 4), w=(5, 4), c=(5, 5)),
        dtypes=BOTH,
    ),
    *(
        Subject(
            f"residual branch scaled by {size:g}",
            _scaled_branch,
            _branch_params(size),
            (zeros("scale"), factor(1.05, "scale"), factor(-1.0, "w"), zeros("w")),
            normal(x=(5, 4), c=(5, 4)),
            dtypes=BOTH,
        )
        for size in (1e-2, 1e-4)
    ),
    Subject(
        "all zero",
        _all_zero,
        _zeros_of(w=(3, 4), b=3),
        (zeros("w"), factor(1.05), factor(6.0, "b"), left_out("b"), factor(-1.0, "b")),
        _labelled,
        dtypes=BOTH,
        demanded=BOTH,
    ),
)
