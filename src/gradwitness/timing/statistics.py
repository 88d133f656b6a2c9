"""The middle of what was measured, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CONFIDENCE", "Interval", "median", "ratio"]

CONFIDENCE = 0.95  # that an interval holds the median


@dataclass(frozen=True)
class Interval:
    """A median, and an interval that holds the true one with `CONFIDENCE`; infinite ends where there is too little."""

    middle: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half of its width, of the middle."""
        return (self.high - self.low) / 2 / self.middle if self.middle else float("inf")

    def holds(self, x: float) -> bool:
        return self.low <= x <= self.high


def median(values: Sequence[Sequence[float]]) -> Interval:
    """Of all values. The interval lies between two of them, whatever their distribution: binomial counts of those below
    the median (Conover, "Practical Nonparametric Statistics", 3rd ed., 3.2), as `scipy.stats.quantile_test` has them.
    Where the medians of the groups, one for each process, lie further apart, it takes them in.
    """
    from scipy.stats import quantile_test  # here, as it takes half a second

    together = np.concatenate([np.asarray(group, np.float64) for group in values])
    ends: Any = quantile_test(together).confidence_interval(CONFIDENCE)
    middles = [float(np.median(group)) for group in values]
    low = min(ends.low, *middles) if np.isfinite(ends.low) else -np.inf
    high = max(ends.high, *middles) if np.isfinite(ends.high) else np.inf
    return Interval(float(np.median(together)), float(low), float(high))


def ratio(values: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> Interval:
    """Of the first to the others, pair by pair: what slows a machine for a while slows both of a pair."""
    groups = zip(values, others, strict=True)
    return median([[a / b for a, b in zip(x, y, strict=True)] for x, y in groups])
