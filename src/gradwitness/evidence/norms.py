"""Norms that neither overflow nor underflow where their value does not: the largest element is divided out first."""

from __future__ import annotations

import numpy as np

from gradwitness.dtypes import Array

__all__ = ["norm", "rms", "typical"]


def norm(x: Array) -> float:
    """The 2-norm of all elements."""
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum((x / largest) ** 2)))


def rms(x: Array) -> Array:
    """The root of the mean square over the first axis, for each of the other elements."""
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return np.full(x.shape[1:], largest)
    result: Array = largest * np.sqrt(np.mean((x / largest) ** 2, axis=0))
    return result


def typical(x: Array) -> float:
    """The root mean square of a leaf's elements, the scale by which it is moved; 1 for zeros."""
    return float(rms(x.reshape(-1))) or 1.0
