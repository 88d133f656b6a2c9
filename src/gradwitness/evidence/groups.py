"""Groups of elements that are moved together, of all leaves, and what derivatives along one showed of it.

An element's *share* is its gradient times the typical value of its leaf: what it adds to the derivative of the loss
along a direction that moves its leaf as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Slope
from gradwitness.evidence.norms import norm

__all__ = [
    "BY_ELEMENT",
    "BY_NORM",
    "DECADES",
    "FEW",
    "NEGLIGIBLE",
    "PROMISED",
    "Group",
    "Part",
    "Seen",
    "by_decade",
    "largest_of",
]

DECADES = 9  # below the largest share: the last takes all that is smaller
PROMISED = 1e-2  # of a group's norm: what must be seen of it
NEGLIGIBLE = 1e-6  # of the largest share: what lies below must vanish within a bound as small
BY_NORM = 0.1  # three Gaussians are all below this once in 2,000 times: what a direction surely sees of a group's error
BY_ELEMENT = 0.02  # and below this four times in a million
FEW = 3  # elements that are differenced one by one, rather than along directions


@dataclass(frozen=True)
class Group:
    """Elements that are moved together: flat indices by path. key: from which their directions are drawn. alone: they
    are to be seen however small they are beside the others."""

    parts: Mapping[str, Array]
    key: tuple[int, ...]
    alone: bool = False

    @property
    def count(self) -> int:
        return sum(x.size for x in self.parts.values())

    def taken_apart(self) -> list[Group]:
        """By leaf, or in halves if there is but one."""
        if len(self.parts) > 1:
            return [Group({path: x}, (*self.key, 0, i)) for i, (path, x) in enumerate(self.parts.items())]
        ((path, x),) = self.parts.items()
        return [Group({path: half}, (*self.key, 1, i)) for i, half in enumerate(np.array_split(x, 2))]


@dataclass(frozen=True)
class Part:
    """What a group has of one leaf, moved by some scales: no array is kept of it.

    norm, largest, lowest: of the shares by these scales; lowest: of those that are not 0. own_norm, own_largest: by the
    leaf's scale, whatever moved the elements. scale: the smallest; stretch: by how much the leaf's exceeds it at most.
    visible: how many elements would show alone. at, claim: the largest element, its flat index and what is claimed of
    it.
    """

    size: int
    norm: float
    largest: float
    lowest: float
    own_norm: float
    own_largest: float
    scale: float
    stretch: float
    at: int
    claim: float
    visible: int = 0

    @classmethod
    def of(cls, index: Array, claims: Array, scales: Array, typical: float) -> Part:
        shares, largest = np.abs(claims * scales), int(np.argmax(np.abs(claims)))
        stretch = np.maximum(typical / scales, 1.0)
        by_leaf = shares * stretch
        return cls(
            shares.size,
            norm(shares),
            largest_of(shares),
            float(np.min(shares, where=shares > 0, initial=math.inf)),
            norm(by_leaf),
            largest_of(by_leaf),
            float(np.min(scales)),
            float(np.max(stretch)),
            int(index[largest]),
            float(claims[largest]),
        )


@dataclass(frozen=True)
class Seen:
    """What was seen of a group, by leaf: its slopes, those of single elements or along directions.

    own: whether elements were moved by their own sizes, or by what is typical of their leaf. refuted: the slope, the
    claim that it refutes, and the direction. doubt: why nothing can be said. alone: as of the group.
    """

    parts: Mapping[str, Part]
    own: bool
    slopes: tuple[Slope, ...] = ()
    refuted: tuple[Slope, float, Mapping[str, Array]] | None = None
    doubt: str = ""
    alone: bool = False

    @property
    def one_by_one(self) -> bool:
        return sum(part.size for part in self.parts.values()) <= FEW

    @property
    def bound(self) -> float:
        return max((s.bound for s in self.slopes), default=math.inf) if not self.doubt else math.inf

    @property
    def norm(self) -> float:
        return math.hypot(*(part.norm for part in self.parts.values()))

    @property
    def largest(self) -> float:
        return max(part.largest for part in self.parts.values())

    @property
    def still(self) -> bool:
        return bool(self.slopes) and all(slope.still for slope in self.slopes)

    @property
    def moves(self) -> float:
        return max((slope.moves for slope in self.slopes if math.isfinite(slope.moves)), default=0.0)

    def sees(self, scale: float) -> bool:
        """Whether as much is seen of it as is promised. scale: the largest share of the problem.

        Shares are those by leaf, whatever moved the elements: one that is much smaller than its leaf counts as any.
        """
        parts = self.parts.values()
        bound = self.bound * max(part.stretch for part in parts)
        own, largest = math.hypot(*(part.own_norm for part in parts)), max(part.own_largest for part in parts)
        by_norm = bound <= PROMISED * (1.0 if self.one_by_one else BY_NORM) * own
        return by_norm or (not self.alone and max(largest, bound) <= NEGLIGIBLE * scale)

    def visible(self, shares: Array) -> int:
        """How many elements of these shares would show alone."""
        part = 1.0 if self.one_by_one else BY_ELEMENT
        return int(np.count_nonzero(self.bound <= part * shares)) if self.bound < math.inf else 0

    def limit(self, path: str, part: float) -> float:
        """The smallest error in a leaf's gradient that shows, if a direction sees so much of it."""
        return self.bound / ((1.0 if self.one_by_one else part) * self.parts[path].scale)


def by_decade(gradient: Array, typical: float, top: float) -> Array:
    """By how many decades each element's share is below the largest: DECADES for zeros, -1 for NaN."""
    with np.errstate(divide="ignore", under="ignore"):
        below = -np.log10(np.abs(gradient) * typical / top)
    decades = np.where(np.isinf(below), DECADES, np.clip(below, 0, DECADES - 1))
    return np.where(np.isnan(below), -1, decades).astype(np.int8)


def largest_of(gradient: Array) -> float:
    return float(np.max(np.nan_to_num(np.abs(gradient)), initial=0.0))
