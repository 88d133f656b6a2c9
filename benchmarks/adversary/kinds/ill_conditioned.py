"""Chaos, ill-conditioned solves and close eigenvalues: gradients that are right as far as anyone can tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.faults import factor, zeros
from benchmarks.adversary.frameworks import Framework, Tree
from benchmarks.adversary.kinds.points import fixed, normal

__all__ = ["SUBJECTS"]


def _logistic_map(steps: int) -> Any:
    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        x = p["x"]
        for _ in range(steps):
            x = p["r"] * x * (1 - x)
        return x.sum()

    return loss


def _hilbert(n: int) -> Any:
    matrix = 1 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    return lambda generator: {"A": matrix, "B": generator.normal(size=(n, 1))}


def _solved(f: Framework, p: Tree, b: Tree) -> Any:
    return (f.linalg.solve(p["A"], p["B"]) ** 2).sum()


def _eigenvector(f: Framework, p: Tree, b: Tree) -> Any:
    a = (p["A"] + p["A"].T) / 2
    return (abs(f.linalg.eigh(a)[1])[:, 0] * b["v"]).sum()


def _close(gap: float) -> Any:
    def draw(generator: np.random.Generator) -> Tree:
        return {"A": np.diag([1, 1 + gap, 3, 4, 5.0]) + 1e-3 * gap * generator.normal(size=(5, 5))}

    return draw


def _recurrence(f: Framework, p: Tree, b: Tree) -> Any:
    h = b["h"]
    for _ in range(30):
        h = f.tanh(3.0 * (p["w"] @ h))
    return (h * b["c"]).sum()


WRONG = (factor(-1.0), factor(2.0), zeros())
SUBJECTS = (
    *(
        Subject(
            f"{steps} steps of the logistic map",
            _logistic_map(steps),
            fixed(x=[0.3, 0.4], r=3.9),
            WRONG,
            frameworks=("numpy", "torch", "jax") if steps < 30 else ("numpy", "torch"),  # XLA takes a minute
        )
        for steps in (20, 40, 60)
    ),
    *(
        Subject(f"solve, Hilbert {n}", _solved, _hilbert(n), (*WRONG, factor(1.05, "B")), frameworks=("torch", "jax"))
        for n in (4, 8, 10)
    ),
    *(
        Subject(
            f"eigenvector, gap {gap:g}",
            _eigenvector,
            _close(gap),
            (factor(-1.0), factor(1.3), zeros()),
            normal(v=5),
            frameworks=("torch", "jax"),
        )
        for gap in (1e-2, 1e-6)
    ),
    Subject(
        "a chaotic recurrent network",
        _recurrence,
        lambda generator: {"w": generator.normal(size=(12, 12)) / np.sqrt(12)},
        WRONG,
        normal(h=12, c=12),
        frameworks=("numpy", "torch"),
    ),
)
