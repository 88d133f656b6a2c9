"""The verdict where there is a referee.

A gradient agrees if its distance from the referee's is what rounding explains: error / noise floor,
by norm and element by element, against thresholds that follow from the number of perturbed runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.finite_difference import Differences
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.verdict.by_differences import against_differences, coarse, confirm_zero, slack, widest, worst
from gradwitness.verdict.reach import floors, node_reach, over
from gradwitness.verdict.verdicts import Judgement, Verdict, defect

__all__ = ["TensorEvidence", "confirms", "judge"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorEvidence:
    """What is known about one gradient at one point, in one dtype.

    reference: the referee's gradient (float64). confirmed: no finite difference refutes it.
    reached: whether a path leads from the leaf to the loss. size: the typical value of the leaf;
    scale: the largest product of gradient and value of any leaf of the problem.
    """

    dtype: str
    reference: Array
    confirmed: bool
    floor: TensorFloor
    differences: Differences
    reached: bool
    size: float = 1.0
    scale: float = np.inf


def judge(gradient: Array | None, evidence: TensorEvidence, *, is_referee: bool = False) -> Judgement:
    """The verdict on one gradient (None: the framework found no path to the loss)."""
    reference, floor = evidence.reference, evidence.floor
    is_finite = bool(np.all(np.isfinite(reference)))
    also = "" if is_finite else "; the referee's is too"
    if wrong := defect(gradient, reference.shape, reached=evidence.reached, also=also):
        return wrong
    gradient = np.zeros(reference.shape) if gradient is None else gradient.astype(np.float64)
    if not is_finite:
        return Judgement(Verdict.INCONCLUSIVE, "the referee's gradient is NaN or infinite here, this one is not")
    if not (np.isfinite(floor.norm) and np.all(np.isfinite(floor.elements))):
        return Judgement(Verdict.INCONCLUSIVE, "rounding in this dtype can make the gradient overflow here")
    if not evidence.differences.probes:
        return Judgement(Verdict.INCONCLUSIVE, "no finite difference is usable here: nothing confirms anything")
    fd_error, fd_bound = worst(evidence.differences, gradient, floor, node_reach(floor))
    figures = {"fd_error": fd_error, "fd_bound": fd_bound, "floor": floor.norm, "limit": _limit(evidence)}
    if is_referee or not evidence.confirmed:
        figures["limit"] += widest(evidence.differences)
        return _judge_by_differences(gradient, evidence, figures, is_referee)
    return _judge_by_floor(gradient, evidence, figures)


def confirms(reference: Array, dtype: str, floor: TensorFloor, differences: Differences) -> bool:
    """Whether finite differences confirm the referee's float64 gradient within their bound.

    floor: the referee's own, in `dtype`.
    """
    narrowing, limits = _narrowing(dtype), node_reach(floor)
    error, bound = differences.worst(reference, lambda probe: narrowing * slack(probe, floor, limits))
    return bool(error <= bound)


def _judge_by_differences(
    gradient: Array, evidence: TensorEvidence, figures: dict[str, Any], is_referee: bool
) -> Judgement:
    """The referee itself, and everybody where it is not confirmed: numerical derivatives decide."""
    if not figures["fd_error"] <= figures["fd_bound"]:
        limits = node_reach(evidence.floor)
        message = against_differences(evidence.differences, gradient, evidence.floor, limits)
        return Judgement(Verdict.DISAGREE, message, **figures)
    if doubt := _coarseness(evidence):
        return Judgement(Verdict.INCONCLUSIVE, doubt, **figures)
    message = "" if is_referee else "judged by finite differences, as they refute the referee"
    return Judgement(Verdict.AGREE, message, **figures)


def _judge_by_floor(gradient: Array, evidence: TensorEvidence, figures: dict[str, Any]) -> Judgement:
    floor, error, limits = evidence.floor, gradient - evidence.reference, node_reach(evidence.floor)
    distance = norm(error)
    by_norm = over(distance, floor.norm) / limits.norm
    by_element = over(np.abs(error), floor.elements) / limits.element
    figures |= {"error": distance, "ratio": max(float(by_norm), float(np.max(by_element)))}
    if not figures["ratio"] <= 1:
        if figures["fd_error"] <= figures["fd_bound"] and _within_bounds(gradient, evidence):
            message = "beyond the noise floor, yet finite differences cannot tell which of the two is right"
            return Judgement(Verdict.INCONCLUSIVE, message, doubted=True, **figures)
        return Judgement(Verdict.DISAGREE, _against_referee(gradient, evidence, int(np.argmax(by_element))), **figures)
    if doubt := _coarseness(evidence):
        return Judgement(Verdict.INCONCLUSIVE, doubt, **figures)
    if not _is_zero(evidence) and norm(evidence.reference) <= _limit(evidence):
        message = "rounding in this dtype is as large as the gradient: a zero would pass"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    return Judgement(Verdict.AGREE, **figures)


def _within_bounds(gradient: Array, evidence: TensorEvidence) -> bool:
    """Whether the two gradients are so close that finite differences cannot separate them.

    Element by element where every one was differenced; by norm where most were not, so that a wrong
    one cannot hide between the probes.
    """
    gap = np.abs(gradient - evidence.reference).reshape(-1)
    probes = [p for p in evidence.differences.probes if p.index is not None]
    if len(probes) < gap.size:
        return norm(gap) <= 2 * max((p.bound for p in probes), default=0.0)
    limits = node_reach(evidence.floor)
    return all(gap[p.index] <= 2 * (p.bound + slack(p, evidence.floor, limits)) for p in probes)


def _coarseness(evidence: TensorEvidence) -> str:
    """Why finite differences confirm nothing; a gradient that is zero by structure is confirmed by being small."""
    return "" if _is_zero(evidence) else coarse(evidence.differences, evidence.reference)


def _is_zero(evidence: TensorEvidence) -> bool:
    """Whether the gradient is zero by structure (a bias before batch norm): float64 computes nothing but noise,
    and finite differences, which would see one that matters, do not object. Or no path leads to it."""
    if not evidence.reached:
        return True
    is_noise = norm(evidence.reference) <= _narrowing(evidence.dtype) * _limit(evidence)
    return is_noise and confirm_zero(evidence.differences, evidence.size, evidence.scale)


def _limit(evidence: TensorEvidence) -> float:
    return node_reach(evidence.floor).norm * evidence.floor.norm


def _narrowing(dtype: str) -> float:
    """How much finer float64 rounds."""
    return find_dtype("float64").unit_roundoff / find_dtype(dtype).unit_roundoff


def _against_referee(gradient: Array, evidence: TensorEvidence, worst_index: int) -> str:
    place = [int(i) for i in np.unravel_index(worst_index, gradient.shape)]
    got, expected = float(gradient.reshape(-1)[worst_index]), float(evidence.reference.reshape(-1)[worst_index])
    size, error = norm(evidence.reference), norm(gradient - evidence.reference)
    part = f"{error:.3g} where it is 0" if size == 0 or _is_zero(evidence) else f"{error / size:.2g} of its norm"
    return (
        f"off by {part}, {floors(float(over(error, evidence.floor.norm)))}; "
        f"worst at {place}: {got:.9g}, expected {expected:.9g}{_numeric(evidence, worst_index)}"
    )


def _numeric(evidence: TensorEvidence, index: int) -> str:
    for probe in evidence.differences.probes:
        if probe.index == index:
            return f", finite difference {probe.value:.9g} +- {probe.bound:.1g}"
    return ""
