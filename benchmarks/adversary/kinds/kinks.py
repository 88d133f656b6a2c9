"""ReLU, maxima and their like: points near kinks and at them, and gradients that no choice of slopes explains."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import elements, factor, only, replaced, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.backwards import handwritten
from benchmarks.adversary.kinds.points import fixed, normal, uniform, weighted

__all__ = ["SUBJECTS", "perceptron", "pooled"]

BOTH = ("float64", "float32")
ORDINARY = (factor(1.01), elements([0, 1, 2], -1.0, leaf="x", off=0.02))
AWAY = {
    "relu": lambda f, x: f.relu(x),
    "absolute value": lambda f, x: abs(x),
    "leaky relu": lambda f, x: f.where(x > 0, x, 0.1 * x),
    "huber": lambda f, x: f.where(abs(x) < 1, 0.5 * x * x, abs(x) - 0.5),
    "hinge": lambda f, x: f.relu(1 - x),
    "relu squared": lambda f, x: f.relu(x) ** 2,
}


def perceptron(f: Framework, p: Tree, b: Tree) -> Any:
    h = f.relu(b["x"] @ p["w"].T + p["b"])
    return ((h @ p["v"] - b["y"]) ** 2).mean()


def _not_masked(f: Framework, p: Tree, b: Tree) -> Any:
    """As if relu were the identity in the backward pass, at the very activations."""
    z = b["x"] @ p["w"].T + p["b"]
    h = z + f.detach(f.relu(z) - z)
    return ((h @ p["v"] - b["y"]) ** 2).mean()


PERCEPTRON = Subject(
    "relu perceptron",
    perceptron,
    normal(w=(8, 4), b=8, v=8),
    (
        Wrong("mask forgotten", 0.1, loss=_not_masked, leaves=("w", "b")),
        factor(1.02, "v"),
        zeros("b"),
        elements([2, 3, 5], -1.0, leaf="v", off=0.02),
    ),
    normal(x=(6, 4), y=6),
    dtypes=BOTH,
    seeds=(0, 1),
)


def pooled(f: Framework, p: Tree, b: Tree) -> Any:
    """Max-pooling of width 3 over 12 places, of products with weights."""
    return (f.amax((p["x"] * p["w"]).reshape(4, 4, 3), -1) * b["c"]).sum()


def _blocks(f: Framework, x: Any) -> Any:
    return f.amax(x.reshape(4, 4, 3), -1)


def _routed(f: Framework, g: Any, x: Any) -> tuple[Any]:
    blocks = x.reshape(4, 4, 3)
    mask = f.where(blocks == f.amax(blocks, -1)[..., None], 1.0 + 0 * blocks, 0 * blocks)
    return ((mask * g[..., None]).reshape(4, 12),)


def _to_first(f: Framework, g: Any, x: Any) -> tuple[Any]:
    return ((g[..., None] * f.constant([1.0, 0.0, 0.0], g)).reshape(4, 12),)


def _to_all(f: Framework, g: Any, x: Any) -> tuple[Any]:
    return ((g[..., None] * f.constant([1.0, 1.0, 1.0], g)).reshape(4, 12),)


def _positive_alone(f: Framework, g: Any, x: Any) -> tuple[Any]:
    (d,) = _routed(f, g, x)
    return (f.where(x > 0, d, 0 * d),)


def _to_largest_magnitude(f: Framework, g: Any, x: Any) -> tuple[Any]:
    return _routed(f, g, abs(x))


POOL = handwritten(
    "max-pool",
    _blocks,
    _routed,
    {
        "to the first place": (_to_first, 0.2, ()),
        "to all places": (_to_all, 0.2, ()),
        "to positive maxima alone": (_positive_alone, 0.1, ()),
        "by magnitude": (_to_largest_magnitude, 0.2, ()),
    },
    normal(-0.8, x=(4, 12)),
    (4, 4),
    demanded=(),
)
POOLED = Subject(
    "max-pool of products",
    pooled,
    normal(x=(4, 12), w=12),
    (factor(1.02, "x"), zeros("w"), elements([0, 1, 2], 2.0, leaf="w", off=0.02)),
    uniform(0.5, 1.5, c=(4, 4)),
    dtypes=BOTH,
)


def _slope(slope: float) -> Any:
    """The gradient with another slope at 0."""
    return only(lambda f, g, x: f.where(x == 0, slope + 0 * x, g))


AT_ZERO = Subject(
    "relu at 0",
    lambda f, p, b: f.relu(p["x"]).sum(),
    fixed(x=[0.0, 0.7, -0.4, 1.3]),
    tuple(Wrong(f"slope {slope:g}", 0.3, _slope(slope)) for slope in (2.0, -1.0)),
    exact=lambda f, p, b: {"x": f.where(p["x"] > 0, 1 + 0 * p["x"], 0 * p["x"])},
    dtypes=BOTH,
    rights={"slope 1": _slope(1.0), "slope 0.5": _slope(0.5)},
)
LARGE_BESIDE = Subject(
    "relu at 0 beside large elements",
    lambda f, p, b: (p["x"] ** 2 + f.relu(p["x"])).sum(),
    lambda generator: {"x": np.concatenate([[0.0], generator.uniform(20.0, 60.0, 15)])},
    tuple(Wrong(f"slope {slope:g}", 0.0025, _slope(slope)) for slope in (2.0, -1.0)),
    exact=lambda f, p, b: {"x": 2 * p["x"] + f.where(p["x"] > 0, 1 + 0 * p["x"], 0 * p["x"])},
    rights={"slope 1": _slope(1.0)},
)
TIE = Subject(
    "maximum of a tie",
    lambda f, p, b: f.amax(p["x"], -1).sum() + (p["x"] ** 2).sum() / 8,
    fixed(x=[[0.5, 0.5, -0.2], [0.1, 0.9, 0.3]]),
    (
        replaced("tie counted twice", lambda f, p, b: _tie(f, p, 1.0, 1.0), 0.3),
        replaced("nobody's tie", lambda f, p, b: _tie(f, p, 0.0, 0.0), 0.3),
        replaced("one gains, one loses", lambda f, p, b: _tie(f, p, 2.0, -1.0), 0.3),
    ),
    exact=lambda f, p, b: _tie(f, p, 0.5, 0.5),
    rights={"the first's": lambda f, g, p, b: _tie(f, p, 1.0, 0.0), "shares": lambda f, g, p, b: _tie(f, p, 0.3, 0.7)},
    dtypes=BOTH,
)


def _tie(f: Framework, p: Tree, first: float, second: float) -> Tree:
    return {"x": f.constant([[first, second, 0.0], [0.0, 1.0, 0.0]], p["x"]) + p["x"] / 4}


SUBJECTS = (
    *(
        Subject(name, weighted(function), normal(1.2, x=9), ORDINARY, uniform(0.5, 1.5, c=9), dtypes=BOTH)
        for name, function in AWAY.items()
    ),
    PERCEPTRON,
    POOL,
    POOLED,
    AT_ZERO,
    LARGE_BESIDE,
    TIE,
)
