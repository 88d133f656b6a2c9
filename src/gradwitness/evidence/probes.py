"""Derivatives by single coordinates for the reader of a report, who wants to see a number beside a number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Differencing, Probe
from gradwitness.evidence.norms import typical

__all__ = ["for_the_reader"]

EVERY = 32  # elements of a problem, all of which are shown
LEAVES = 32  # of a larger one, each with one element: what a run takes must not grow with the number of its tensors


def for_the_reader(differencing: Differencing, gradients: Mapping[str, Array]) -> dict[str, tuple[Probe, ...]]:
    """Every coordinate of a small problem; else the largest element of each leaf, at the cost of two values, of the
    leaves with the largest shares. NaN is not shown."""
    if sum(g.size for g in gradients.values()) <= EVERY:
        known = {path: np.flatnonzero(~np.isnan(g)) for path, g in gradients.items()}
        return {path: differencing.by_coordinates(path, [int(i) for i in index]) for path, index in known.items()}
    largest = {path: int(np.argmax(np.nan_to_num(np.abs(g)))) for path, g in gradients.items()}

    def share(path: str) -> float:
        size = abs(float(gradients[path].flat[largest[path]])) * typical(differencing.primals[path])
        return size if math.isfinite(size) else 0.0

    shown = sorted(gradients, key=share, reverse=True)[:LEAVES]
    return {path: differencing.briefly(path, largest[path]) if path in shown else () for path in gradients}
