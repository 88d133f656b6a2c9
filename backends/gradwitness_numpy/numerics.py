"""The functions that NumPy lacks or that object arrays of balls will need another way: one short table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["erf", "expect_in_range", "gaussian_cdf", "gaussian_density", "scatter_add", "sigmoid", "softplus"]

Array = Any


def erf(x: Array) -> Array:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    from scipy.special import erf as error_function

    return error_function(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    from scipy.special import expit

    return expit(x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def gaussian_cdf(x: Array) -> Array:
    """Phi(x), accurate in both tails."""
    from scipy.special import ndtr

    return ndtr(x)


def gaussian_density(x: Array) -> Array:
    """exp(-x^2 / 2) / sqrt(2 pi)."""
    return np.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def expect_in_range(what: str, integers: Array, limit: int) -> None:
    """Raise IndexError unless all are in [0, limit): NumPy would count negative ones from the end, others would not."""
    outside = np.asarray(integers)[(np.asarray(integers) < 0) | (np.asarray(integers) >= limit)]
    if outside.size:
        raise IndexError(f"{what} {outside[0]} is outside [0, {limit})")


def scatter_add(shape: tuple[int, ...], indices: Array, values: Array) -> Array:
    """Zeros of `shape` with `values[i]` added at row `indices[i]`; repeats add up.

    Sorted runs are summed by reduceat: np.add.at visits elements one by one.
    """
    result = np.zeros(shape, values.dtype)
    if indices.size:
        order = np.argsort(indices, kind="stable")
        rows = indices[order]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(rows)) + 1))
        result[rows[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return result
