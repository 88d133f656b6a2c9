"""How many noise floors rounding may reach."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gradwitness.evidence.noise_floor import TensorFloor

__all__ = ["JITTER_REACH", "Reach", "floors", "node_reach", "over", "threshold"]

FALSE_ALARM = 1e-9  # the chance, per tensor and statistic, that rounding alone exceeds the threshold


@dataclass(frozen=True)
class Reach:
    """Rounding explains an error of up to `norm` floors by norm and `element` by element, and none beyond `certain`,
    where that is more; between the two nothing is said for certain."""

    norm: float
    element: float
    certain: float = 0.0

    @property
    def beyond_doubt(self) -> Reach:
        """The reach that only a certain error exceeds."""
        return Reach(max(self.norm, self.certain), max(self.element, self.certain))


# Jittered inputs say little of what is rounded further inside: on correct float32 mlps they explained errors up to
# 3.6 of their floors by norm and 27 by element.
JITTER_REACH = Reach(norm=10, element=50, certain=300)


@cache
def threshold(runs: int, count: int = 1) -> float:
    """How many floors rounding may reach: Student's t with `runs` degrees of freedom, `count` elements.

    The floor is a spread estimated from `runs` samples, so error / floor follows t, not the normal
    law; the largest of `count` elements is bounded by Bonferroni's inequality.
    """
    from scipy.special import stdtrit

    return float(-stdtrit(runs, FALSE_ALARM / (2 * count)))


def node_reach(floor: TensorFloor) -> Reach:
    """Of a floor that every node's perturbation has made."""
    return Reach(threshold(floor.runs), threshold(floor.runs, max(floor.elements.size, 1)))


def over(error: Any, floor: Any) -> Any:
    """error / floor, where 0 / 0 is agreement and x / 0 is not."""
    error, floor = np.asarray(error, np.float64), np.asarray(floor, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / floor)


def floors(ratio: float) -> str:
    """A ratio in words."""
    return "where rounding explains none" if np.isinf(ratio) else f"{ratio:.3g} noise floors"
