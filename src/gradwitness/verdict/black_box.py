"""The verdict where there is no reference: on a candidate by its own loss, and on two by each other.

The question is split in two. Is the formula right? The candidate's gradient in float64 is held
against numerical derivatives of its own loss. Is its rounding what its dtype explains? Its gradient in
the dtype on trial is held against its own in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.finite_difference import Differences
from gradwitness.evidence.noise_floor import TensorFloor, scaled
from gradwitness.evidence.norms import norm
from gradwitness.verdict.by_differences import (
    COARSE,
    against_differences,
    coarse,
    confirm_zero,
    is_within,
    widest,
    worst,
)
from gradwitness.verdict.reach import JITTER_REACH, Reach, floors, node_reach, over
from gradwitness.verdict.verdicts import Judgement, Verdict, defect

__all__ = ["BlackBoxEvidence", "compare", "judge_black_box", "stands_against", "with_largest_rounded"]

Array = np.ndarray[Any, Any]
CHAOS = 1e3  # a gradient that rounds so much more than its inputs explain tells nothing about its formula
CERTAIN = JITTER_REACH.beyond_doubt


@dataclass(frozen=True)
class BlackBoxEvidence:
    """What is known about one gradient of a candidate.

    fine: its gradient in float64; None where the dtype on trial is float64, or the candidate has no other.
    sensitivity: the spread that jittered inputs make in float64; floor: what rounding explains in the dtype on
    trial, by perturbing every operation (`by_node`) or by jittered inputs. differences: of its own loss. size: the
    typical value of the leaf; scale: the largest product of gradient and value of any leaf. same_loss: whether the
    loss in the dtype on trial is that in float64, up to rounding.
    """

    dtype: str
    fine: Array | None
    sensitivity: TensorFloor
    floor: TensorFloor
    by_node: bool
    differences: Differences
    size: float
    scale: float
    same_loss: bool = True

    @property
    def reached(self) -> bool:
        """Whether the differences see that the loss moves with the leaf."""
        return any(abs(p.value) > p.bound for p in self.differences.probes)

    @property
    def reach(self) -> Reach:
        """How many of its floors rounding may reach."""
        return node_reach(self.floor) if self.by_node else JITTER_REACH

    @property
    def of_formula(self) -> tuple[TensorFloor, Reach]:
        """What rounding explains of the distance between the finest gradient and the differences, and its reach."""
        return (self.floor, self.reach) if self.fine is None else (self.sensitivity, JITTER_REACH)

    @property
    def allowed(self) -> TensorFloor:
        """The floor of the distance between the gradient and that in float64."""
        if self.fine is None or self.by_node:
            return self.floor
        return with_largest_rounded(self.floor, self.fine, self.dtype)

    @property
    def limit(self) -> float:
        return self.reach.norm * self.floor.norm + widest(self.differences)


def judge_black_box(gradient: Array | None, evidence: BlackBoxEvidence) -> Judgement:
    """The verdict on one gradient by all that its own candidate gives."""
    floor, differences = evidence.floor, evidence.differences
    if wrong := defect(gradient, floor.elements.shape, reached=evidence.reached):
        return wrong
    gradient = np.zeros(floor.elements.shape) if gradient is None else gradient.astype(np.float64)
    if not (np.isfinite(floor.norm) and np.all(np.isfinite(floor.elements))):
        return Judgement(Verdict.INCONCLUSIVE, "as its inputs move by a rounding, the gradient leaves its range")
    if not differences.probes:
        return Judgement(Verdict.INCONCLUSIVE, "no finite difference is usable here: nothing confirms anything")
    fd_error, fd_bound = worst(differences, gradient, floor, evidence.reach)
    figures: dict[str, Any] = {
        "fd_error": fd_error,
        "fd_bound": fd_bound,
        "floor": floor.norm,
        "limit": evidence.limit,
    }
    if evidence.fine is not None:
        distance = compare(gradient, evidence.fine, evidence.allowed, evidence.reach)
        figures |= {"error": distance.error, "ratio": distance.ratio}
    verdict, message = _formula(gradient, evidence) or _rounding(gradient, evidence) or (Verdict.AGREE, "")
    return Judgement(verdict, message, **figures)


def _formula(gradient: Array, evidence: BlackBoxEvidence) -> tuple[Verdict, str] | None:
    """Whether the differences refute it. In float64 what exceeds their bounds by more than the inputs' rounding in
    the dtype on trial explains, no rounding does; in the dtype's own arithmetic, there is room for doubt."""
    differences = evidence.differences
    if evidence.fine is not None:
        if is_within(differences, evidence.fine, evidence.sensitivity, JITTER_REACH):
            return _chaos(evidence.fine, evidence)
        if not is_within(differences, gradient, evidence.floor, evidence.reach):
            return Verdict.DISAGREE, against_differences(differences, gradient, evidence.floor, evidence.reach)
        message = against_differences(differences, evidence.fine, evidence.sensitivity, JITTER_REACH)
        return Verdict.DISAGREE, f"in float64 {message}"
    if is_within(differences, gradient, evidence.floor, evidence.reach):
        return None
    message = against_differences(differences, gradient, evidence.floor, evidence.reach)
    if is_within(differences, gradient, evidence.floor, evidence.reach.beyond_doubt):
        return Verdict.INCONCLUSIVE, f"{message}: more than rounding is known to explain, too little to be sure"
    return Verdict.DISAGREE, message


def _chaos(fine: Array, evidence: BlackBoxEvidence) -> tuple[Verdict, str] | None:
    """Whether the gradient in float64 is only within what jittered inputs excuse, and that is much: then it jumps about
    as its inputs move. One that is merely sensitive lies within the differences' own bounds in float64."""
    unit = find_dtype(evidence.dtype).unit_roundoff
    narrowed = scaled(evidence.sensitivity, find_dtype("float64").unit_roundoff / unit)
    if evidence.sensitivity.norm <= CHAOS * unit * norm(fine) or is_within(
        evidence.differences, fine, narrowed, CERTAIN
    ):
        return None
    return Verdict.INCONCLUSIVE, "it jumps about as its inputs move by a rounding: a wrong one could pass"


def _rounding(gradient: Array, evidence: BlackBoxEvidence) -> tuple[Verdict, str] | None:
    """Whether its rounding is what its dtype explains, and small enough for anything to be said."""
    floor, known = evidence.floor, gradient if evidence.fine is None else evidence.fine
    if evidence.fine is not None:
        allowed, reach = evidence.allowed, evidence.reach
        distance = compare(gradient, evidence.fine, allowed, reach)
        if not distance.ratio <= 1:
            by_norm = float(over(distance.error, allowed.norm))
            message = f"right in float64, but {floors(by_norm)} from there in {evidence.dtype}"
            if not evidence.same_loss:
                also = "so does the loss, as with random numbers that depend on the dtype: it cannot be held against it"
                return Verdict.INCONCLUSIVE, f"{message}; {also}"
            is_far = not by_norm <= reach.beyond_doubt.norm and distance.error > COARSE * norm(evidence.fine)
            if evidence.by_node or is_far:
                return Verdict.DISAGREE, f"{message}: more than rounding explains"
            # Digits that every run loses alike (of v in v + 1e4) move no spread: below a hundredth that may be it.
            place = [int(i) for i in np.unravel_index(np.argmax(np.abs(gradient - evidence.fine)), gradient.shape)]
            return Verdict.INCONCLUSIVE, f"{message}, most at {place}: more than rounding is known to explain"
    if _is_zero(known, evidence):
        return None
    if doubt := coarse(evidence.differences, known):
        return Verdict.INCONCLUSIVE, doubt
    unit = find_dtype(evidence.dtype).unit_roundoff
    if not evidence.by_node and floor.norm > CHAOS * max(evidence.sensitivity.norm, unit * norm(known)):
        return Verdict.INCONCLUSIVE, "it rounds a thousand times more than its inputs explain: a wrong one could pass"
    if norm(known) <= evidence.reach.norm * floor.norm:
        return Verdict.INCONCLUSIVE, "rounding in this dtype is as large as the gradient: a zero would pass"
    return None


def with_largest_rounded(floor: TensorFloor, gradient: Array, dtype: str) -> TensorFloor:
    """The floor, with a rounding in `dtype` of the largest element added to each element: p - 1 for a softmax p near 1
    loses its digits in every run alike, so that no spread shows it."""
    rounded = find_dtype(dtype).unit_roundoff * float(np.max(np.abs(gradient), initial=0.0))
    return TensorFloor(max(floor.norm, rounded), np.hypot(floor.elements, rounded), floor.runs)


def _is_zero(known: Array, evidence: BlackBoxEvidence) -> bool:
    """Whether the gradient is zero by structure (a bias before batch norm): nothing but rounding was computed, and
    the differences, which would see one that matters, do not object."""
    is_noise = norm(known) <= evidence.reach.norm * evidence.floor.norm
    return is_noise and confirm_zero(evidence.differences, evidence.size, evidence.scale)


@dataclass(frozen=True)
class Distance:
    """Of two gradients: by norm, and over what rounding may reach (at most 1: equal but for rounding)."""

    error: float
    ratio: float


def compare(gradient: Array, other: Array, floor: TensorFloor, reach: Reach) -> Distance:
    """The ratio is the larger of by norm and by element."""
    error = gradient - other
    by_norm = float(over(norm(error), floor.norm)) / reach.norm
    by_element = float(np.max(over(np.abs(error), floor.elements))) / reach.element
    return Distance(norm(error), max(by_norm, by_element))


def stands_against(evidence: BlackBoxEvidence, other: Array) -> bool:
    """Whether the candidate's own differences refute what another one says in its place."""
    return bool(evidence.differences.probes) and not is_within(
        evidence.differences, other, evidence.sensitivity, JITTER_REACH
    )
