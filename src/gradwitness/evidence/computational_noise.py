"""How noisy a function is that is only known by its values.

The k-th differences of closely spaced values of a smooth function vanish quickly with k; those of its
rounding errors do not, and their mean square tells the variance of one error (Hamming, *Introduction to
Applied Numerical Analysis*, 1971, chapter 6; More and Wild, "Estimating computational noise", SIAM J.
Sci. Comput. 33 (2011), section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gradwitness.dtypes import find_dtype

__all__ = ["computational_noise"]

POINTS = 9
ORDERS = (4, 5, 6)  # of the differences used: what is smooth has gone by then
SPACINGS = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)  # relative: the first at which the values move, as one of float32 would not


def computational_noise(along: Callable[[float], float]) -> float:
    """The standard deviation of the rounding error of a function of one variable near 0, whose scale is 1.

    Where no spacing moves the value it is constant, or rounded too coarsely to tell: then one rounding
    of it in bfloat16, the coarsest dtype there is.
    """
    values = np.zeros(POINTS)
    for spacing in SPACINGS:
        values = np.array([along(spacing * (i - POINTS // 2)) for i in range(POINTS)])
        if not np.all(np.isfinite(values)):
            return math.inf
        if np.count_nonzero(np.diff(values)) >= POINTS // 2:
            return max(_deviation(np.diff(values, order), order) for order in ORDERS)
    return abs(float(values[POINTS // 2])) * find_dtype("bfloat16").unit_roundoff


def _deviation(differences: np.ndarray[tuple[int], np.dtype[np.float64]], order: int) -> float:
    """The k-th difference of independent errors of variance v has variance v (2k)! / (k!)^2."""
    return float(np.sqrt(np.mean(differences**2) / math.comb(2 * order, order)))
