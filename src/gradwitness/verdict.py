"""From evidence to a named verdict: one function, `judge`.

A gradient agrees if its distance from the referee's is what rounding explains: error / noise floor,
by norm and element by element, against thresholds that follow from the number of perturbed runs. Where
the loss is a black box there is no referee: numerical derivatives of its own loss decide, and candidates
are held against the first of them that these do not refute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.finite_difference import Differences, Probe
from gradwitness.evidence.noise_floor import JITTER, NODES, RUNS, TensorFloor
from gradwitness.evidence.norms import norm

__all__ = [
    "ACCEPTED",
    "Judgement",
    "LossJudgement",
    "TensorEvidence",
    "Verdict",
    "confirms",
    "judge",
    "judge_loss",
    "reach",
    "refutes",
    "threshold",
    "unsteady",
]

Array = np.ndarray[Any, Any]

COARSE = 1e-2  # finite differences whose bound is a larger part of the gradient confirm nothing
FALSE_ALARM = 1e-9  # the chance, per tensor and statistic, that rounding alone exceeds the threshold


class Verdict(StrEnum):
    """What is said of one gradient of one candidate, worst last."""

    AGREE = "agree"
    UNSUPPORTED = "unsupported"
    INCONCLUSIVE = "inconclusive"
    NONFINITE = "nonfinite"
    MISSING = "missing"
    NONDETERMINISTIC = "nondeterministic"
    DISAGREE = "disagree"
    DIFFERENT_LOSS = "different-loss"
    ERROR = "error"


ACCEPTED = frozenset({Verdict.AGREE, Verdict.UNSUPPORTED})


@dataclass(frozen=True)
class TensorEvidence:
    """What is known about one gradient at one point, in one dtype.

    reference: the referee's gradient (float64). confirmed: no finite difference refutes it.
    reached: whether a path leads from the leaf to the loss. peer: the reference is another
    candidate's gradient, which can be as wrong as this one, and the differences are of this one's own loss.
    """

    dtype: str
    reference: Array
    confirmed: bool
    floor: TensorFloor
    differences: Differences
    reached: bool
    peer: bool = False


@dataclass(frozen=True)
class Judgement:
    """A verdict with the figures that it rests on; errors and floors are absolute, by norm.

    error, floor: distance from the referee and what rounding explains of it. ratio: the larger of
    error / floor over its threshold, by norm and by element (at most 1 agrees). fd_error, fd_bound:
    distance from the numerical derivative at the worst probe, and what it may be. limit: the
    smallest error by norm that would have been caught. doubted: the referee may as well be the one at fault.
    """

    verdict: Verdict
    message: str = ""
    error: float | None = None
    floor: float | None = None
    ratio: float | None = None
    fd_error: float | None = None
    fd_bound: float | None = None
    limit: float | None = None
    doubted: bool = False


@cache
def threshold(runs: int, count: int = 1) -> float:
    """How many floors rounding may reach: Student's t with `runs` degrees of freedom, `count` elements.

    The floor is a spread estimated from `runs` samples, so error / floor follows t, not the normal
    law; the largest of `count` elements is bounded by Bonferroni's inequality.
    """
    from scipy.special import stdtrit

    return float(-stdtrit(runs, FALSE_ALARM / (2 * count)))


@dataclass(frozen=True)
class Reach:
    """How many floors rounding may reach, by norm and by element. It explains less than that; what exceeds
    `certain` it does not explain; between the two nothing is said for certain."""

    norm: float
    element: float
    certain: float = 0.0

    @property
    def certain_norm(self) -> float:
        return max(self.norm, self.certain)

    @property
    def certain_element(self) -> float:
        return max(self.element, self.certain)


# Jittered inputs say nothing of what is rounded further inside: on correct float32 mlps they explained errors up to
# 3.6 of their floors by norm and 27 by element.
_JITTER_REACH = Reach(norm=10, element=50, certain=300)


def reach(floor: TensorFloor) -> Reach:
    """What rounding may reach of this floor."""
    if floor.perturbed == JITTER:
        return _JITTER_REACH
    return Reach(threshold(floor.runs), threshold(floor.runs, max(floor.elements.size, 1)))


def judge(gradient: Array | None, evidence: TensorEvidence, *, is_referee: bool = False) -> Judgement:
    """The verdict on one gradient (None: the framework found no path to the loss)."""
    if gradient is None:
        if evidence.reached:
            return Judgement(Verdict.MISSING, "None, though a path leads from this parameter to the loss")
        gradient = np.zeros(evidence.reference.shape)
    if gradient.shape != evidence.reference.shape:
        return Judgement(
            Verdict.DISAGREE, f"the gradient has shape {gradient.shape}, its parameter {evidence.reference.shape}"
        )
    gradient = gradient.astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(gradient)))
    if bad:
        also = "; the referee's is too" if not np.all(np.isfinite(evidence.reference)) else ""
        return Judgement(Verdict.NONFINITE, f"{bad} of {gradient.size} elements are NaN or infinite{also}")
    if not np.all(np.isfinite(evidence.reference)):
        return Judgement(Verdict.INCONCLUSIVE, "the referee's gradient is NaN or infinite here, this one is not")
    floor = evidence.floor
    if not (np.isfinite(floor.norm) and np.all(np.isfinite(floor.elements))):
        return Judgement(Verdict.INCONCLUSIVE, "rounding in this dtype can make the gradient overflow here")
    if not evidence.differences.probes:
        return Judgement(Verdict.INCONCLUSIVE, "no finite difference is usable here: nothing confirms anything")
    fd_error, fd_bound = evidence.differences.worst(gradient, lambda probe: _slack(probe, floor))
    limit = _limit_by_differences(evidence) if is_referee or evidence.peer else _limit(evidence)
    figures = {"fd_error": fd_error, "fd_bound": fd_bound, "floor": floor.norm, "limit": limit}
    if is_referee or not evidence.confirmed:
        return _judge_by_differences(gradient, evidence, figures, is_referee)
    return _judge_by_floor(gradient, evidence, figures)


def _judge_by_differences(
    gradient: Array, evidence: TensorEvidence, figures: dict[str, Any], is_referee: bool
) -> Judgement:
    """The referee itself, and everybody where it is not confirmed: numerical derivatives decide."""
    if not figures["fd_error"] <= figures["fd_bound"]:
        return _refuted_by_differences(gradient, evidence, figures)
    coarse = _coarseness(evidence)
    if coarse:
        return Judgement(Verdict.INCONCLUSIVE, coarse, **figures)
    if evidence.floor.perturbed == JITTER and _zero_could_pass(evidence):
        message = "rounding in this dtype is as large as the gradient: a zero would pass"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    message = "" if is_referee else "judged by finite differences, as they refute the referee"
    return Judgement(Verdict.AGREE, message, **figures)


def _refuted_by_differences(gradient: Array, evidence: TensorEvidence, figures: dict[str, Any]) -> Judgement:
    """Beyond what the floor explains for certain, or only beyond what it may."""
    if refutes(evidence.differences, gradient, evidence.floor):
        return Judgement(Verdict.DISAGREE, _against_differences(gradient, evidence), **figures)
    message = f"{_against_differences(gradient, evidence)}: more than jittered inputs explain, too little to be sure"
    return Judgement(Verdict.INCONCLUSIVE, message, **figures)


def _judge_by_floor(gradient: Array, evidence: TensorEvidence, figures: dict[str, Any]) -> Judgement:
    floor, error, limits = evidence.floor, gradient - evidence.reference, reach(evidence.floor)
    distance = norm(error)
    by_norm = float(_over(distance, floor.norm))
    by_element = _over(np.abs(error), floor.elements)
    largest = float(np.max(by_element))
    figures |= {"error": distance, "ratio": max(by_norm / limits.norm, largest / limits.element)}
    if evidence.peer and not figures["fd_error"] <= figures["fd_bound"]:
        return _refuted_by_differences(gradient, evidence, figures)
    if not figures["ratio"] <= 1:
        if by_norm <= limits.certain_norm and largest <= limits.certain_element and evidence.peer:
            message = f"{_floors(max(by_norm, largest))} from the first candidate that is not refuted: not sure to be"
            return Judgement(Verdict.INCONCLUSIVE, f"{message} more than rounding", **figures)
        if evidence.peer or (figures["fd_error"] <= figures["fd_bound"] and _within_bounds(gradient, evidence)):
            message = "beyond the noise floor, yet finite differences cannot tell which of the two is right"
            return Judgement(Verdict.INCONCLUSIVE, message, doubted=True, **figures)
        return Judgement(Verdict.DISAGREE, _against_referee(gradient, evidence, int(np.argmax(by_element))), **figures)
    coarse = _coarseness(evidence)
    if coarse:
        return Judgement(Verdict.INCONCLUSIVE, coarse, **figures)
    if _zero_could_pass(evidence):
        message = "rounding in this dtype is as large as the gradient: a zero would pass"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    return Judgement(Verdict.AGREE, **figures)


@dataclass(frozen=True)
class LossJudgement:
    """What differs between two losses, if anything, and whether for certain."""

    message: str = ""
    certain: bool = True

    @property
    def verdict(self) -> Verdict | None:
        """None if the losses are equal."""
        if not self.message:
            return None
        return Verdict.DIFFERENT_LOSS if self.certain else Verdict.INCONCLUSIVE


def judge_loss(
    losses: Sequence[float],
    references: Sequence[float],
    floors: Sequence[float],
    *,
    perturbed: str = NODES,
    whose: str = "the referee",
) -> LossJudgement:
    """Whether a candidate computes the same loss as the referee, or as another candidate, at every point.

    The first point is the problem's own, the others its neighbours; floors are spreads of the loss.
    """
    limits = _JITTER_REACH if perturbed == JITTER else Reach(threshold(RUNS), threshold(RUNS))
    doubt = LossJudgement()
    for place, (loss, reference, floor) in enumerate(zip(losses, references, floors, strict=True)):
        if not (np.isfinite(reference) and np.isfinite(floor)):
            continue
        where = "at the given point" if place == 0 else f"at seeded neighbour {place} (not at the given point)"
        if not np.isfinite(loss):
            return LossJudgement(f"the loss is {loss} {where}; that of {whose} is {reference:.9g}")
        ratio = float(_over(abs(loss - reference), floor))
        if ratio <= limits.norm:
            continue
        size = f"{_floors(ratio)} of the loss"
        message = f"the losses differ {where}: {loss:.17g} against {reference:.17g} of {whose}, {size}"
        if not ratio <= limits.certain_norm:
            return LossJudgement(message)
        doubt = LossJudgement(f"{message}: not sure to be more than rounding", certain=False)
    return doubt


def unsteady(first: Array | None, second: Array | None) -> str:
    """How two answers to the same call differ; empty if they do not, bit by bit."""
    if first is None or second is None or first.shape != second.shape:
        return "" if first is None and second is None else "the same call twice gave two different kinds of answer"
    if first.tobytes() == second.tobytes():
        return ""
    error, size = norm(second.astype(np.float64) - first), norm(first)
    part = f"{error / size:.2g} of its norm" if size else f"{error:.2g}"
    return f"the same call twice gave two answers, {part} apart: seed what is random, and keep no state between calls"


def _over(error: Any, floor: Any) -> Any:
    """error / floor, where 0 / 0 is agreement and x / 0 is not."""
    error, floor = np.asarray(error, np.float64), np.asarray(floor, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / floor)


def _slack(probe: Probe, floor: TensorFloor) -> float:
    """What rounding in the candidate's own gradient may add to a probe's difference."""
    limits = reach(floor)
    return _widened(probe, floor, limits.norm, limits.element)


def _widened(probe: Probe, floor: TensorFloor, by_norm: float, by_element: float) -> float:
    if probe.direction is not None:
        return by_norm * norm(probe.direction * floor.elements)
    return by_element * float(floor.elements.reshape(-1)[probe.index])


def refutes(differences: Differences, gradient: Array, floor: TensorFloor) -> bool:
    """Whether a difference refutes the gradient for certain: beyond its bound and what rounding can explain."""
    limits = reach(floor)
    error, bound = differences.worst(
        gradient, lambda probe: _widened(probe, floor, limits.certain_norm, limits.certain_element)
    )
    return not error <= bound


def confirms(reference: Array, dtype: str, floor: TensorFloor, differences: Differences) -> bool:
    """Whether finite differences confirm the referee's float64 gradient within their bound.

    floor: the referee's own, in `dtype`.
    """
    narrowing = find_dtype("float64").unit_roundoff / find_dtype(dtype).unit_roundoff
    error, bound = differences.worst(reference, lambda probe: narrowing * _slack(probe, floor))
    return bool(error <= bound)


def _within_bounds(gradient: Array, evidence: TensorEvidence) -> bool:
    """Whether the two gradients are so close that finite differences cannot separate them.

    Element by element where every one was differenced; by norm where most were not, so that a wrong
    one cannot hide between the probes.
    """
    gap = np.abs(gradient - evidence.reference).reshape(-1)
    probes = [p for p in evidence.differences.probes if p.index is not None]
    if len(probes) < gap.size:
        return norm(gap) <= 2 * max((p.bound for p in probes), default=0.0)
    return all(gap[p.index] <= 2 * (p.bound + _slack(p, evidence.floor)) for p in probes)


def _coarseness(evidence: TensorEvidence) -> str:
    """Why finite differences are too coarse to confirm this gradient; empty if they are not.

    They are if a bound exceeds a hundredth of the gradient: beside a kink, or where a large loss
    drowns what is differenced. A gradient that is zero by structure is confirmed by being small.
    """
    size, widest = norm(evidence.reference), max(p.bound for p in evidence.differences.probes)
    if widest <= COARSE * size or _is_zero(evidence):
        return ""
    return f"finite differences are too coarse: +- {widest:.1g} for a gradient of {size:.1g}; a wrong one could pass"


def _limit(evidence: TensorEvidence) -> float:
    return reach(evidence.floor).norm * evidence.floor.norm


def _limit_by_differences(evidence: TensorEvidence) -> float:
    """What is judged by differences hides what they cannot see as well."""
    return _limit(evidence) + max(p.bound for p in evidence.differences.probes)


def _is_zero(evidence: TensorEvidence) -> bool:
    """Whether the gradient is zero by structure (a bias before batch norm): nothing but noise was computed, and
    finite differences do not object to a zero."""
    zero, size = np.zeros(evidence.reference.shape), norm(evidence.reference)
    if evidence.floor.perturbed == JITTER:  # computed in the dtype itself; differences alone know better
        error, bound = evidence.differences.worst(zero, lambda probe: 0.0)
        return bool(size <= _limit(evidence) and error <= bound)
    narrowing = find_dtype("float64").unit_roundoff / find_dtype(evidence.dtype).unit_roundoff
    return size <= narrowing * _limit(evidence) and not _refuted(zero, evidence)


def _zero_could_pass(evidence: TensorEvidence) -> bool:
    """Whether a zero would be within the floor of a gradient that is not zero."""
    return not _is_zero(evidence) and norm(evidence.reference) <= _limit(evidence)


def _refuted(gradient: Array, evidence: TensorEvidence) -> bool:
    error, bound = evidence.differences.worst(gradient, lambda probe: _slack(probe, evidence.floor))
    return bool(error > bound)


def _floors(ratio: float) -> str:
    return "where rounding explains none" if np.isinf(ratio) else f"{ratio:.3g} noise floors"


def _against_referee(gradient: Array, evidence: TensorEvidence, worst: int) -> str:
    place = [int(i) for i in np.unravel_index(worst, gradient.shape)]
    got, expected = float(gradient.reshape(-1)[worst]), float(evidence.reference.reshape(-1)[worst])
    size, error = norm(evidence.reference), norm(gradient - evidence.reference)
    part = f"{error:.3g} where it is 0" if size == 0 or _is_zero(evidence) else f"{error / size:.2g} of its norm"
    return (
        f"off by {part}, {_floors(float(_over(error, evidence.floor.norm)))}; "
        f"worst at {place}: {got:.9g}, expected {expected:.9g}{_numeric(evidence, worst)}"
    )


def _numeric(evidence: TensorEvidence, index: int) -> str:
    for probe in evidence.differences.probes:
        if probe.index == index:
            return f", finite difference {probe.value:.9g} +- {probe.bound:.1g}"
    return ""


def _against_differences(gradient: Array, evidence: TensorEvidence) -> str:
    def excess(probe: Probe) -> float:
        return float(_over(abs(probe.of(gradient) - probe.value), probe.bound + _slack(probe, evidence.floor)))

    probe = max(evidence.differences.probes, key=excess)
    if probe.index is None:
        place = "along a Gaussian direction"
    else:
        place = f"at {[int(i) for i in np.unravel_index(probe.index, gradient.shape)]}"
    return (
        f"finite differences refute it {place}: {probe.of(gradient):.9g}, "
        f"finite difference {probe.value:.9g} +- {probe.bound:.1g}"
    )
