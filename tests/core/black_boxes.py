"""A layer in NumPy whose loss and gradient are written by hand, as a researcher writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import gradwitness as gw

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((5, 5)), "b": RNG.standard_normal(5), "scale": np.array(1.3)}
BATCH = {"x": RNG.standard_normal((7, 5)), "y": RNG.standard_normal((7, 5)), "keep": np.arange(7) % 3 > 0}

Gradient = dict[str, Any]


def hidden(p: Any, d: Any) -> Any:
    return np.tanh(d["x"] @ p["w"].T + p["b"])


def loss(p: Any, d: Any) -> Any:
    """The mean squared error of the examples kept."""
    error = (p["scale"] * hidden(p, d) - d["y"])[d["keep"]]
    return np.mean(error * error)


def gradient(p: Any, d: Any) -> Gradient:
    h, kept = hidden(p, d), d["keep"][:, None]
    g = 2 * kept * (p["scale"] * h - d["y"]) / (kept.sum() * h.shape[1])
    by_z = g * p["scale"] * (1 - h * h)
    return {"w": by_z.T @ d["x"], "b": by_z.sum(axis=0), "scale": np.sum(g * h)}


def verify(gradient: Any = gradient, loss: Any = loss, **options: Any) -> gw.Report:
    candidate = gw.Candidate("numpy", loss, gradient=gradient)
    return gw.verify({"mine": candidate}, PARAMS, BATCH, **({"dtypes": ("float64", "float32")} | options))


def verdicts(report: gw.Report, parameter: str | None = None) -> set[str]:
    return {str(row.verdict) for row in report.rows if parameter in (None, row.parameter)}


def changed(path: str, change: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Gradient]:
    """The right gradient with one leaf's changed: `change(g, params, batch)`."""

    def wrong(p: Any, d: Any) -> Gradient:
        found = gradient(p, d)
        return {**found, path: change(found[path], p, d)}

    return wrong


def times(factor: float) -> Callable[[Any, Any, Any], Any]:
    return lambda g, p, d: g * factor


def rows_of(report: gw.Report, label: str, parameter: str) -> set[str]:
    return {str(r.verdict) for r in report.rows if (r.candidate, r.parameter) == (label, parameter)}
