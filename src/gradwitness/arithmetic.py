"""How a library rounds in one dtype, where that is more than one rounding of each result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype

__all__ = ["AMPLIFICATION", "Arithmetic", "RoundingErrors", "Sums"]

AMPLIFICATION = 2.0**20  # at u itself float64 would round the perturbation away


@dataclass(frozen=True)
class Sums:
    """How sums of many terms round.

    k terms leave an error of u c(k) sqrt(y^2 + sum of squares), with y the sum and c(k) = (k / free)^power, at least 1
    and at most `most`. Adding one term after another has a power of 1/2, for terms that cancel and for those that
    do not; in pairs, or in a wider dtype, c stays 1.
    """

    power: float
    free: float = 1.0
    most: float = math.inf

    def growth(self, terms: Any) -> Any:
        """c(k)."""
        return np.clip((np.maximum(terms, 1.0) / self.free) ** self.power, 1.0, self.most)


@dataclass(frozen=True)
class Arithmetic:
    """sums: those that grow, by op ("sum" for plain sums). flushes: subnormal numbers become zero."""

    sums: frozenset[tuple[str, Sums]] = frozenset()
    flushes: bool = False

    def sums_of(self, op: str) -> Sums | None:
        return dict(self.sums).get(op)


@dataclass(frozen=True)
class RoundingErrors:
    """The rounding errors of one dtype, as they are put on results in float64.

    A result y has an error with the standard deviation roundoff c(k) sqrt(y^2 + m) + tiny, with m the moment of what is
    summed in it and c(k) how sums grow (`Sums`); an exact zero has none. roundoff is `amplification` times the dtype's
    own, as float64 would lose errors of its own size: what comes of them is divided by it.
    """

    roundoff: float
    tiny: float
    amplification: float
    arithmetic: Arithmetic

    @classmethod
    def of(cls, dtype: str, arithmetic: Arithmetic) -> RoundingErrors:
        found = find_dtype(dtype)
        amplification = AMPLIFICATION if dtype == "float64" else 1.0
        tiny = found.smallest_normal if arithmetic.flushes else found.smallest_subnormal
        return cls(found.unit_roundoff * amplification, tiny, amplification, arithmetic)
