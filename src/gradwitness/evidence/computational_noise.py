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

__all__ = ["noise_along"]

POINTS = 9
ORDERS = (4, 5, 6)  # of the differences used: what is smooth has gone by then, and most of it from the highest
SPACINGS = (1e-10, 1e-8, 1e-6, 1e-4)  # relative: a step inside that computes in float32 shows from 1e-8 on


def noise_along(along: Callable[[float], float], *, thorough: bool = False) -> float:
    """The standard deviation of the rounding error of a function of one variable near 0, whose scale is 1.

    At the shortest spacing at which it moves; `thorough`: the largest over all of them, as a staircase is smooth, or
    stands still, between two of its steps. At each the smallest over the orders, so that what is left of a smooth
    function does not count. Infinite where the function is not finite.
    """
    found = 0.0
    for spacing in SPACINGS:
        values = np.array([along(spacing * (i - POINTS // 2)) for i in range(POINTS)])
        if not np.all(np.isfinite(values)):
            return found or math.inf
        found = max(found, min(_deviation(np.diff(values, order), order) for order in ORDERS))
        if not thorough and np.count_nonzero(np.diff(values)) >= POINTS // 2:
            break
    return found


def _deviation(differences: np.ndarray[tuple[int], np.dtype[np.float64]], order: int) -> float:
    """The k-th difference of independent errors of variance v has variance v (2k)! / (k!)^2."""
    return float(np.sqrt(np.mean(differences**2) / math.comb(2 * order, order)))
