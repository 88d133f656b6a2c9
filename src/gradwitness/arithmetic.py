"""How a library rounds in one dtype, where that is more than one rounding of each result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype

__all__ = ["AMPLIFICATION", "REDUCTIONS", "Arithmetic", "Operands", "Reduction", "RoundingErrors", "Sums"]

Array = np.ndarray[Any, Any]
AMPLIFICATION = 2.0**20  # at u itself float64 would round the perturbation away
STORED_BITS = 52  # of a float64's significand


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
class Operands:
    """What becomes of two numbers before they are multiplied: `bits` bits of their significands are kept, behind the
    leading one that is not stored. The rest is rounded to nearest even, or cut off.

    scaled: where both are results and neither is a leaf, as in attention, they were first scaled by who knows what.
    """

    bits: int
    nearest: bool = True
    scaled: bool = False

    def rounded(self, x: Array) -> Array:
        """The float64 array with so few bits, of the same shape."""
        dropped = STORED_BITS - self.bits
        raw = np.ascontiguousarray(x, np.float64).view(np.int64)
        if self.nearest:
            raw = raw + ((1 << (dropped - 1)) - 1 + ((raw >> dropped) & 1))
        return np.where(np.isfinite(x), ((raw >> dropped) << dropped).view(np.float64).reshape(np.shape(x)), x)


@dataclass(frozen=True)
class Arithmetic:
    """sums: those that grow, by op ("sum" for plain sums). flushes: subnormal numbers become zero.
    operands: what becomes of those of contractions; None: nothing."""

    sums: frozenset[tuple[str, Sums]] = frozenset()
    flushes: bool = False
    operands: Operands | None = None

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


@dataclass(frozen=True)
class Reduction:
    """One way in which hardware trades precision for speed in matrix products and convolutions.

    name: what a candidate would then be made of. dtypes: those in which it is found. operands: what becomes of the
    factors, which can be foretold bit by bit. sums: how their sums grow; in which order they are taken nobody knows.
    """

    name: str
    dtypes: tuple[str, ...]
    operands: Operands | None = None
    sums: Sums | None = None

    def of(self, arithmetic: Arithmetic) -> Arithmetic:
        """The arithmetic of a library, reduced like this."""
        grown = {} if self.sums is None else dict.fromkeys(("matmul", "conv2d"), self.sums)
        sums = frozenset({**dict(arithmetic.sums), **grown}.items())
        return replace(arithmetic, sums=sums, operands=self.operands)


def _short(name: str, bits: int) -> Iterator[Reduction]:
    """A conversion before the product rounds to nearest; without one, tensor cores cut off what they do not take."""
    for scaled in (False, True):
        yield Reduction(f"{name} ({bits} bits)", ("float32",), Operands(bits, scaled=scaled))
        yield Reduction(f"{name} ({bits} bits, the rest cut off)", ("float32",), Operands(bits, False, scaled))


# Finest first. The bits of TF32 and bfloat16: NVIDIA A100 Tensor Core GPU Architecture (2020), figure 9.
REDUCTIONS = (
    *_short("matrix products of TF32 operands", 10),
    *_short("matrix products of bfloat16 operands", 7),
    *(
        Reduction(f"matrix products summed in {dtype}, one after another", (dtype,), sums=Sums(1 / 2))
        for dtype in ("float16", "bfloat16")
    ),
)
