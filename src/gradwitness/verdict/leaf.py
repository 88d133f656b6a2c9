"""What is known about one leaf's gradient at one point, whatever it was learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import Reach
from gradwitness.evidence.reference import Exact
from gradwitness.evidence.sight import Sight

if TYPE_CHECKING:  # most gradients are nowhere near a kink
    from gradwitness.verdict.at_kink import AtKink

__all__ = ["LeafEvidence", "Standing"]

ZERO = 1e-30  # a product of gradient and value that is less of the largest one is zero by structure
NOISE = 1e-12  # the same where it was computed in float64, and differences see nothing in its place


class Standing(Enum):
    """How far that is to be trusted which a gradient is held against."""

    VALIDATED = "in 256 bits, validated by differences in as many: the truth"
    CONFIRMED = "in float64, and no finite difference refutes it"
    KINKED = "one of those that a choice of slopes at kinks gives, by rules that hold beside them"
    REFUTED = "refuted by differences, or there is none in 256 bits: finite differences take over"
    OWN = "the candidate's own in float64, or the gradient on trial itself: finite differences judge it"


@dataclass(frozen=True)
class LeafEvidence:
    """What one gradient in `dtype` is judged by.

    truth: what it is held against; standing: how far that is to be trusted. floor: what rounding explains of the
    distance; reach: how many floors it may reach. sight: what differences see of the truth; None where it needs none,
    or is not finite. sight_of: of another gradient. size: the typical value of the leaf; scale: the largest product of
    gradient and value of any leaf of the problem. reached: whether a path leads from the leaf to the loss; None where
    nobody knows but the differences. kink: the units at kinks, or within rounding of one, if there are any. closer:
    takes a further difference, by one element (a flat index). probes: differences for the reader. is_referee: whether
    the gradient is that of the reference's own interpreter. may_flush: whether subnormal numbers may become zero on the
    way, as in a user's own kernels.

    Where the standing is OWN: own_noise: what its own arithmetic rounds in the truth, by norm, asked for where that is
    small; narrowed: whether the truth is another gradient than the one on trial, that in float64;
    another_loss: why the loss in the dtype on trial may be another one than in float64, empty where it is the same up
    to rounding; is_vouched: whether a framework vouches that nothing leads to the loss where it gives None. remark:
    what to say beside a gradient that agrees; hint: beside one that differences refute.
    """

    dtype: str
    truth: Exact
    standing: Standing
    floor: TensorFloor
    reach: Reach
    sight: Sight | None = None
    sight_of: Callable[[Array], Sight] | None = None
    size: float = 1.0
    scale: float = field(kw_only=True)
    reached: bool | None = True
    kink: AtKink | None = None
    closer: Callable[[int], tuple[Probe, ...]] = lambda index: ()
    probes: tuple[Probe, ...] = ()
    is_referee: bool = False
    may_flush: bool = False
    narrowed: bool = False
    another_loss: str = ""
    is_vouched: bool = True
    own_noise: Callable[[], float] | None = None
    remark: str = ""
    hint: Callable[[], str] = lambda: ""

    @property
    def is_true(self) -> bool:
        """Whether nothing but the floor is between a gradient and the truth."""
        return self.standing in (Standing.VALIDATED, Standing.KINKED)

    @property
    def lost(self) -> Array:
        """What each element may be off beyond its floor.

        A subnormal number may become zero, as where exp overflows on the way to it. float16 has too few others.
        """
        size = np.abs(self.truth.high)
        may = (self.narrowed or self.may_flush) and self.dtype != "float16"
        return np.where(size < find_dtype(self.dtype).smallest_normal, size, 0.0) if may else np.zeros(size.shape)

    @property
    def limit(self) -> float:
        """The smallest error by norm that would be caught."""
        return self.reach.norm * self.floor.norm + norm(self.lost) + self._unseen_by_norm

    @property
    def limit_element(self) -> float:
        """An error of one element, whichever it is, that would be caught."""
        largest = float(np.max(self.floor.elements, initial=0.0))
        largest = self.reach.element * largest + float(np.max(self.lost, initial=0.0))
        return largest + (0.0 if self.sight is None else self.sight.limit_element)

    @property
    def _unseen_by_norm(self) -> float:
        return 0.0 if self.sight is None else self.sight.limit

    @property
    def is_zero(self) -> bool:
        """Whether the truth is zero by structure (a bias before batch norm): nothing but rounding was computed, and
        differences, which would see a gradient that matters, see none. Or no path leads to it."""
        size = norm(self.truth.high)
        if self.reached is False:
            return True
        if self.is_true:
            return size * self.size <= ZERO * self.scale
        seen = self.sight is not None and self.sight.refuted is None and not self.sight.unseen
        return seen and (size * self.size <= NOISE * self.scale or self.is_noise)  # the second takes runs

    @property
    def is_noise(self) -> bool:
        """Whether the truth is no more than what its own computation in float64 rounds."""
        size = norm(self.truth.high)
        if size == 0 or self.own_noise is not None:
            return size == 0 or (self.own_noise is not None and size <= self.own_noise())
        narrowing = find_dtype("float64").unit_roundoff / find_dtype(self.dtype).unit_roundoff
        return size <= narrowing * self.reach.norm * self.floor.norm
