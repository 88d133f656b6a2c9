"""Derivatives by single coordinates for the reader of a report, who wants to see a number beside a number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Differencing, Probe

__all__ = ["for_the_reader"]

EVERY = 32  # elements of a problem, all of which are shown


def for_the_reader(differencing: Differencing, gradients: Mapping[str, Array]) -> dict[str, tuple[Probe, ...]]:
    """Every coordinate of a small problem; else the largest element of each leaf, at the cost of a few values. NaN is
    not shown."""
    if sum(g.size for g in gradients.values()) <= EVERY:
        known = {path: np.flatnonzero(~np.isnan(g)) for path, g in gradients.items()}
        return {path: differencing.by_coordinates(path, [int(i) for i in index]) for path, index in known.items()}
    return {path: differencing.briefly(path, int(np.argmax(np.nan_to_num(np.abs(g))))) for path, g in gradients.items()}
