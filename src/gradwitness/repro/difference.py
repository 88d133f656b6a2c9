"""The numerical derivative that a script takes, and what it explains: these functions are written into the script.

The shrinking judges by them too, so that a script says what was seen when it was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["central_difference", "explained"]


def central_difference(function: Callable[[float], float], x: float) -> tuple[float, float, float]:
    """The derivative at x, a bound on its error, and the step: of several steps, the one with the least bound.

    Two central differences, extrapolated (Richardson). The bound adds what halving the step changed, the rounding of
    the function over the step, and the jump of the slope at x, if there is one.
    """

    def at(x: float) -> float:
        try:
            return function(x)
        except Exception:  # noqa: BLE001  # outside of its domain it may raise anything
            return math.nan

    middle, best = at(x), (math.nan, math.inf, math.nan)
    for step in (scale * size for scale in {1.0, abs(x) or 1.0} for size in (1e-2, 1e-3, 1e-4, 1e-5)):
        central, jump, largest = [], [], abs(middle)
        for h in (step, step / 2):
            above, below = at(x + h), at(x - h)
            central.append((above - below) / (2 * h))
            jump.append((above - 2 * middle + below) / h)
            largest = max(largest, abs(above), abs(below))
        bound = abs(central[1] - central[0]) + abs(2 * jump[1] - jump[0]) + 2.0**-48 * largest / step
        if bound < best[1]:
            best = ((4 * central[1] - central[0]) / 3, bound, step)
    return best


def explained(gradient: float, difference: float, bound: float, unit_roundoff: float) -> bool:
    """Whether the bound of the difference, and rounding, which may cost half of the digits, explain it."""
    return abs(gradient - difference) <= bound + math.sqrt(unit_roundoff) * min(abs(gradient), abs(difference))
