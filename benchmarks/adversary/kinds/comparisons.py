"""Backward passes that compare for equality, or keep whole numbers and signs: perturbed, none is equal any more."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject, Wrong
from benchmarks.adversary.faults import factor
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.frameworks import dtype_name as name_of
from benchmarks.adversary.kinds.backwards import handwritten
from benchmarks.adversary.kinds.points import fixed, normal

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")


def _products(f: Framework, a: Any, b: Any) -> Any:
    """Matrix product of the max-plus algebra."""
    return f.amax(a[:, :, None] + b[None], 1)


def _products_backward(by: float = 1.0, second: float = 1.0) -> Any:
    def backward(f: Framework, g: Any, a: Any, b: Any) -> tuple[Any, Any]:
        sums = a[:, :, None] + b[None]
        chosen = sums == f.amax(sums, 1)[:, None]
        routed = f.where(chosen, by * g[:, None] + 0 * sums, 0 * sums)
        return routed.sum(2), second * routed.sum(0)

    return backward


def _magnitude_backward(truncated: bool = False, dropped: bool = False) -> Any:
    def backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
        signs = x if truncated else f.where(x >= 0, 1.0 + 0 * x, 0 * x - 1.0)
        kept = f.cast(f.cast(signs, "int8"), name_of(x))
        return (g * (kept * kept if dropped else kept),)

    return backward


def _argmax(last: bool, factor: float = 1.0) -> Any:
    def backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
        place = f.argmin(x, -1) if last else f.argmax(x, -1)
        hit = place[:, None] == f.arange(x.shape[1])
        return (f.where(hit, factor * g[:, None] + 0 * x, 0 * x),)

    return backward


def _median_backward(shifted: int = 0) -> Any:
    def backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
        middle = _median(f, x)
        hit = x == middle[:, None]
        routed = f.where(hit, g[:, None] + 0 * x, 0 * x)
        return (f.roll(routed, shifted) if shifted else routed,)

    return backward


def _median(f: Framework, x: Any) -> Any:
    """Of the three in each row."""
    a, b, c = x[:, 0], x[:, 1], x[:, 2]
    low, high = f.minimum(a, b), f.maximum(a, b)
    return f.maximum(low, f.minimum(high, c))


def _rounded_factors(f: Framework, p: Tree, b: Tree) -> Any:
    """The batch's whole numbers are rounded, and serve as factors."""
    return (b["scale"] * p["x"] * f.floor(b["n"] + 0.5)).sum()


SUBJECTS = (
    handwritten(
        "max-plus product",
        _products,
        _products_backward(),
        {
            "times 1 + 2e-6": (_products_backward(1 + 2e-6), 1.9e-6, ()),
            "times 1.01": (_products_backward(1.01), 0.0099, ()),
            "second twice": (_products_backward(second=2.0), 0.9, ("b",)),
        },
        normal(a=(3, 4), b=(4, 5)),
        (3, 5),
        demanded=(),
    ),
    handwritten(
        "magnitudes by signs in int8",
        lambda f, x: abs(x),
        _magnitude_backward(),
        {
            "values in the place of signs": (_magnitude_backward(truncated=True), 0.3, ()),
            "signs lost": (_magnitude_backward(dropped=True), 0.5, ()),
        },
        fixed(x=[-1.7, -0.9, -0.4, 0.2, 0.8, 1.6]),
        6,
        batch=fixed(c=[0.9, -1.2, 0.6, 1.1, 0.7, -0.8]),
    ),
    handwritten(
        "maximum by argmax",
        lambda f, x: f.amax(x, 1),
        _argmax(last=False),
        {
            "argmin": (_argmax(last=True), 0.9, ()),
            "times 1.01": (_argmax(last=False, factor=1.01), 0.0099, ()),
        },
        normal(x=(4, 6)),
        4,
    ),
    handwritten(
        "median of three by equality",
        _median,
        _median_backward(),
        {"to its neighbour": (_median_backward(1), 0.5, ())},
        normal(x=(5, 3)),
        5,
    ),
    Subject(
        "whole numbers as factors",
        _rounded_factors,
        normal(x=6),
        (
            factor(1.01),
            Wrong("truncated, not rounded", 0.05, lambda f, g, p, b: {"x": b["scale"] * f.floor(b["n"] - 0.5)}),
        ),
        lambda generator: {"scale": generator.uniform(0.5, 1.5, size=6), "n": np.arange(1.0, 7.0)},
        dtypes=BOTH,
        demanded=BOTH,
    ),
)
