"""What is verified in workers, and without: `tests/core/test_executor.py` in processes, `tests/dask` in a cluster."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np

import gradwitness as gw
from gradwitness import ops

__all__ = ["BATCH", "PARAMS", "black_boxes", "dying", "rows", "traced"]

DRAW = np.random.default_rng(0).standard_normal
PARAMS = {"w": DRAW((4, 3)), "b": DRAW(4)}
BATCH = {"x": DRAW((8, 3)), "y": DRAW((8, 4))}
DTYPES = ("float64", "float32")


def traced(p: Any, b: Any) -> Any:
    return ops.mse(ops.tanh(ops.linear(b["x"], p["w"], p["b"])), b["y"], reduction="mean", half=False)


def loss(p: Any, b: Any) -> Any:
    return ((np.tanh(b["x"] @ p["w"].T + p["b"]) - b["y"]) ** 2).mean()


def gradient(p: Any, b: Any) -> Any:
    hidden = np.tanh(b["x"] @ p["w"].T + p["b"])
    g = 2 * (hidden - b["y"]) / hidden.size * (1 - hidden**2)
    return {"w": g.T @ b["x"], "b": g.sum(axis=0)}


def black_boxes() -> dict[str, Any]:
    """A lambda, which travels as well, a right gradient by hand, and a wrong one."""
    return {
        "torch": lambda p, b: ((b["x"] @ p["w"].T + p["b"] - b["y"]) ** 2).mean() + 0 * p["w"].exp().sum(),
        "mine": gw.Candidate("torch", lambda p, b: ((b["x"] @ p["w"].T + p["b"] - b["y"]) ** 2).mean()),
        "wrong": gw.Candidate(
            "numpy", loss, gradient=lambda p, b: {"w": -gradient(p, b)["w"], "b": gradient(p, b)["b"]}
        ),
    }


def dying(p: Any, b: Any) -> Any:
    """The gradient in float64; in float32 the end of the process that asks for it."""
    if p["w"].dtype == np.float32:
        os._exit(3)
    return gradient(p, b)


def rows(what: Any, executor: Executor | None = None, **options: Any) -> list[gw.Row]:
    """Those of a run, but for how long preparing took."""
    how = {"dtypes": DTYPES, "reference": "differences"} | options
    found = gw.verify(what, PARAMS, BATCH, executor=executor, **how)
    return [replace(row, setup_seconds=None) for row in found.rows]
