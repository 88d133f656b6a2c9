"""The functions that NumPy lacks, and the constants that are to have the digits of the numbers they meet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = [
    "erf",
    "exact",
    "expect_in_range",
    "gaussian_cdf",
    "gaussian_density",
    "is_extremum",
    "pi",
    "rounded",
    "scatter_add",
    "sigmoid",
    "softplus",
]

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
    return np.exp(x * x * -0.5) * (2 * pi(x)) ** -0.5


def exact(number: float, like: Array) -> Any:
    """A number of `like`'s kind: what is computed from it has the digits of balls, where `like` holds balls."""
    if not _holds_balls(like):
        return number
    from flint import arb

    return arb(number)


def pi(like: Array) -> Any:
    """pi, as a number of `like`'s kind."""
    return exact(0.0, like).pi() if _holds_balls(like) else math.pi


def rounded(x: Array) -> Array:
    """x in float64 where it holds balls: for a maximum that only stabilises, a number close by will do."""
    return x.astype(np.float64) if _holds_balls(x) else x


def is_extremum(x: Array, y: Array) -> Any:
    """Whether an element is the one that a maximum or minimum took its value y, and its slope, from."""
    if not _holds_balls(x):
        return x == y
    from gradwitness_numpy.balls import same

    return same(x, y)


def _holds_balls(x: Array) -> bool:
    return getattr(x, "dtype", np.dtype(float)).kind == "O"


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
