"""How a library rounds in one dtype, where that is more than one rounding of each result."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness.dtypes import Array, find_dtype

__all__ = [
    "AMPLIFICATION",
    "ONEDNN",
    "REDUCTIONS",
    "Arithmetic",
    "Operands",
    "Product",
    "Reduction",
    "RoundingErrors",
    "Sizes",
    "Sums",
]

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
class Product:
    """A matrix product as a library is asked for it: (rows, inner) by (inner, columns), `batch` times at once."""

    rows: int
    inner: int
    columns: int
    batch: int | None = None

    @property
    def multiplications(self) -> int:
        return (self.batch or 1) * self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Sizes:
    """The matrix products for which a library takes the trouble to convert its operands.

    Those with more than `multiplications` and at least `rows`. Of single ones, those with more than `inner` terms to a
    sum and, where the rows are at most `few`, more than `results`; of batches all, or none (`batched`).
    """

    multiplications: int
    rows: int
    inner: int
    few: int
    results: int
    batched: bool = True

    def include(self, product: Product) -> bool:
        if product.multiplications <= self.multiplications or product.rows < self.rows:
            return False
        if product.batch is not None:
            return self.batched
        return product.inner > self.inner and (product.rows > self.few or product.rows * product.columns > self.results)


@dataclass(frozen=True)
class Operands:
    """What becomes of two numbers before they are multiplied: `bits` bits of their significands are kept, behind the
    leading one that is not stored. The rest is rounded to nearest even, or cut off.

    scaled: where both are results and neither is a leaf, as in attention, they were first scaled by who knows what.
    only: in this op alone ("matmul", "conv2d"); None: in every contraction. sizes: of matrix products, in these alone.
    """

    bits: int
    nearest: bool = True
    scaled: bool = False
    only: str | None = None
    sizes: Sizes | None = None

    def are_of(self, op: str, product: Product | None) -> bool:
        """Whether those of this product of the op are among them; None: no matrix product."""
        if self.only not in (None, op):
            return False
        return self.sizes is None or product is None or self.sizes.include(product)

    def matter(self, ops: Collection[str], results: bool) -> bool:
        """Whether they are of their own in a graph with contractions of these ops. results: some multiply two results,
        without which it is all the same how these are scaled."""
        apart = self.only is None or (self.only in ops and (len(ops) > 1 or self.sizes is not None))
        return apart and (results or not self.scaled)

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


# oneDNN on a CPU with AMX, where float32 may be multiplied in bfloat16. Its own limits: `brgemm_matmul_utils.cpp` of
# version 3.12 (`is_small_shapes`, and the comment "BF32 'Hint' Heuristic"). torch asks it from 16^3 multiplications on:
# `aten/src/ATen/native/mkldnn/Matmul.cpp`.
ONEDNN = Sizes(16**3, rows=8, inner=16, few=32, results=256)

KINDS = {  # of products that are reduced; torch has a setting for each, and at its default convolutions alone take TF32
    None: "matrix products",
    "matmul": "matrix products, and no convolutions,",
    "conv2d": "convolutions, and no matrix products,",
}


def _short(name: str, bits: int) -> Iterator[Reduction]:
    """A conversion before the product rounds to nearest; without one, tensor cores cut off what they do not take."""
    for only, kind in KINDS.items():
        for scaled in (False, True):
            short = Operands(bits, scaled=scaled, only=only)
            cut = replace(short, nearest=False)
            yield Reduction(f"{kind} of {name} operands ({bits} bits)", ("float32",), short)
            yield Reduction(f"{kind} of {name} operands ({bits} bits, the rest cut off)", ("float32",), cut)


def _large(name: str, bits: int) -> Iterator[Reduction]:
    """What attention multiplies may be scaled first, or be left in float32 by a kernel of its own."""
    short = Operands(bits, only="matmul", sizes=ONEDNN)
    apart = replace(short, scaled=True, sizes=replace(ONEDNN, batched=False))
    for operands in (short, replace(short, scaled=True), apart):
        yield Reduction(f"large matrix products of {name} operands ({bits} bits)", ("float32",), operands)


# Finest first. The bits of TF32 and bfloat16: NVIDIA A100 Tensor Core GPU Architecture (2020), figure 9.
REDUCTIONS = (
    *_short("TF32", 10),
    *_large("bfloat16", 7),
    *_short("bfloat16", 7),
    *(
        Reduction(f"matrix products summed in {dtype}, one after another", (dtype,), sums=Sums(1 / 2))
        for dtype in ("float16", "bfloat16")
    ),
)
