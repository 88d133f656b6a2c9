"""Losses beside a large constant, and data far from zero: what is sought lies in the last digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import elements, factor, replaced, zeros
from benchmarks.adversary.frameworks import Framework, Loss, Tree
from benchmarks.adversary.kinds.points import normal

__all__ = ["SUBJECTS"]

BOTH = ("float64", "float32")


def _small_slopes(offset: float) -> Loss:
    return lambda f, p, b: offset + p["x"][0] + 1e-4 * f.sin(p["x"][1:]).sum()


def _least_squares(offset: float) -> Loss:
    return lambda f, p, b: ((b["x"] @ p["w"] - b["y"]) ** 2).mean() + offset


def _centred(f: Framework, p: Tree, b: Tree) -> Any:
    return (((b["x"] - b["x"].mean(0)) @ p["w"]) ** 2).mean()


def _variance(f: Framework, p: Tree, b: Tree) -> Any:
    y = b["x"] * p["w"]
    return ((y - y.mean(0)) ** 2).mean()


def _large_logits(f: Framework, p: Tree, b: Tree) -> Any:
    z = b["x"] @ p["w"].T + 600
    top = f.detach(f.amax(z, -1))
    return (top + f.log(f.exp(z - top[..., None]).sum(-1)) - (z * b["t"]).sum(-1)).mean()


def _labelled(generator: np.random.Generator) -> Tree:
    labels = generator.integers(4, size=6)
    return {"x": generator.normal(size=(6, 3)), "t": np.eye(4)[labels]}


def _layer_norm(f: Framework, p: Tree, b: Tree) -> Any:
    x = b["x"] - b["x"].mean(-1)[..., None]
    x = x / f.sqrt((x * x).mean(-1)[..., None] + 1e-5)
    return (f.tanh(x @ p["w"]) ** 2).mean()


SUBJECTS = (
    *(
        Subject(
            f"loss + {offset:g}, small slopes",
            _small_slopes(offset),
            normal(x=16),
            (
                elements(range(1, 16), -1.0, leaf="x", off=1e-4, name="all small slopes have the other sign"),
                elements(range(1, 16), 0.0, leaf="x", off=1e-4, name="all small slopes are zero"),
                factor(1.05),
            ),
            frameworks=("numpy", "torch"),
        )
        for offset in (1e6, 1e9)
    ),
    *(
        Subject(
            f"least squares + {offset:g}",
            _least_squares(offset),
            normal(w=4),
            (factor(1.05), zeros(), factor(-1.0)),
            normal(x=(6, 4), y=6),
            dtypes=BOTH,
        )
        for offset in (1e4, 1e9)
    ),
    *(
        Subject(
            f"centred data of mean {mean:g}",
            _centred,
            normal(w=3),
            (factor(1.0003), factor(1.02), zeros(), elements([1], -1.0, leaf="w", off=0.02)),
            normal(1.0, mean, x=(64, 3)),
            dtypes=BOTH,
        )
        for mean in (1000.0, 2000.0)
    ),
    Subject(
        "variance of data of mean 1000",
        _variance,
        normal(0.2, 1.0, w=3),
        (replaced("of the mean", lambda f, p, b: {"w": 2 * p["w"] * (b["x"] ** 2).mean(0) / 3}, 1.0), factor(1.02)),
        normal(1.0, 1000.0, x=(200, 3)),
        dtypes=BOTH,
    ),
    Subject(
        "variance of 100,000 of mean 1000",
        lambda f, p, b: _variance(f, p, b).sum(),
        normal(0.1, 0.5, w=()),
        (factor(1.05), factor(-1.0)),
        normal(1.0, 1000.0, x=100_000),
        frameworks=("torch", "jax"),
        dtypes=("float32",),
        seeds=(0, 1),
    ),
    Subject(
        "cross-entropy of logits near 600",
        _large_logits,
        normal(w=(4, 3)),
        (factor(1.02), zeros(), elements([0, 1, 2], -1.0, leaf="w", off=0.1)),
        _labelled,
        dtypes=BOTH,
    ),
    Subject(
        "layer norm of data of mean 1000",
        _layer_norm,
        normal(0.4, w=(8, 4)),
        (factor(1.0003), factor(1.02), elements(range(4), 0.0, leaf="w", off=0.05, name="first row zero")),
        normal(1.0, 1000.0, x=(16, 8)),
        dtypes=BOTH,
    ),
)
