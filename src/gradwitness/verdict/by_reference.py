"""The verdict where there is a reference.

A gradient agrees if its distance from the reference is what rounding explains: error / noise floor,
by norm and element by element, against thresholds that follow from the number of perturbed runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwitness.dtypes import find_dtype, spacing
from gradwitness.evidence.finite_difference import Differences, Probe
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reference import Exact
from gradwitness.verdict.by_differences import against_differences, coarse, confirm_zero, slack, widest, worst
from gradwitness.verdict.reach import floors, node_reach, over
from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict, defect

if TYPE_CHECKING:  # most gradients are nowhere near a kink
    from gradwitness.verdict.at_kink import AtKink

__all__ = ["Standing", "TensorEvidence", "confirms", "judge"]

Array = np.ndarray[Any, Any]
ZERO = 1e-30  # a product of gradient and value that is less of the largest one is zero by structure


class Standing(Enum):
    """How far a reference is to be trusted."""

    VALIDATED = "in 256 bits, validated by differences in as many: the truth"
    CONFIRMED = "in float64, and no finite difference refutes it"
    KINKED = "one of those that a choice of slopes at kinks gives, by rules that hold beside them"
    REFUTED = "refuted by differences, or there is none in 256 bits: finite differences take over"


@dataclass(frozen=True)
class TensorEvidence:
    """What is known about one gradient at one point, in one dtype.

    reached: whether a path leads from the leaf to the loss. size: the typical value of the leaf;
    scale: the largest product of gradient and value of any leaf of the problem. kink: the units at kinks, or within
    rounding of one, if there are any. closer: takes a further difference, by one element (a flat index).
    """

    dtype: str
    reference: Exact
    standing: Standing
    floor: TensorFloor
    differences: Differences
    reached: bool
    size: float = 1.0
    scale: float = np.inf
    kink: AtKink | None = None
    closer: Callable[[int], tuple[Probe, ...]] = lambda index: ()


def judge(gradient: Array | None, evidence: TensorEvidence, *, is_referee: bool = False) -> Judgement:
    """The verdict on one gradient (None: the framework found no path to the loss)."""
    reference, floor = evidence.reference.high, evidence.floor
    is_finite = bool(np.all(np.isfinite(reference)))
    also = "" if is_finite else "; the reference is too"
    if wrong := defect(gradient, reference.shape, reached=evidence.reached, also=also):
        return wrong
    gradient = np.zeros(reference.shape) if gradient is None else gradient.astype(np.float64)
    if not is_finite:
        return Judgement(Verdict.INCONCLUSIVE, "the reference is NaN or infinite here, this one is not")
    if evidence.standing is Standing.KINKED and evidence.kink is not None:
        return evidence.kink.judge(gradient, is_zero=_is_zero(evidence))
    if not (np.isfinite(floor.norm) and np.all(np.isfinite(floor.elements))):
        return Judgement(Verdict.INCONCLUSIVE, "rounding in this dtype can make the gradient overflow here")
    figures: dict[str, Any] = {"floor": floor.norm, "limit": _limit(evidence), "limit_element": _coarsest(evidence)}
    if evidence.differences.probes:
        fd_error, fd_bound = worst(evidence.differences, gradient, floor, node_reach(floor))
        figures |= {"fd_error": fd_error, "fd_bound": fd_bound}
    if evidence.standing is Standing.VALIDATED:
        return _unless_near_a_kink(_judge_by_floor(gradient, evidence, figures), gradient, evidence)
    if not evidence.differences.probes:
        return Judgement(Verdict.INCONCLUSIVE, "no finite difference is usable here: nothing confirms anything")
    if is_referee or evidence.standing is Standing.REFUTED:
        figures["limit"] += widest(evidence.differences)
        return _judge_by_differences(gradient, evidence, figures, is_referee)
    return _unless_near_a_kink(_judge_by_floor(gradient, evidence, figures), gradient, evidence)


def _unless_near_a_kink(judgement: Judgement, gradient: Array, evidence: TensorEvidence) -> Judgement:
    """Units within rounding of a kink may be on either side. Then the floor is as wide as the jump between them, or has
    not seen it; one at fixed slopes tells more."""
    if judgement.verdict is Verdict.AGREE or evidence.kink is None or not evidence.kink.matters:
        return judgement
    found = evidence.kink.judge(gradient, is_zero=_is_zero(evidence))
    return found if found.verdict in ACCEPTED else judgement


def confirms(reference: Array, dtype: str, floor: Callable[[], TensorFloor], differences: Differences) -> bool:
    """Whether finite differences confirm the referee's float64 gradient within their bound.

    floor: the referee's own, in `dtype`; asked for only where the bound alone does not explain the difference.
    """
    error, bound = differences.worst(reference, lambda probe: 0.0)
    if error <= bound:
        return True
    own, narrowing = floor(), _narrowing(dtype)
    limits = node_reach(own)
    error, bound = differences.worst(reference, lambda probe: narrowing * slack(probe, own, limits))
    return bool(error <= bound)


def _judge_by_differences(
    gradient: Array, evidence: TensorEvidence, figures: dict[str, Any], is_referee: bool
) -> Judgement:
    """The referee itself, and everybody where there is no reference: numerical derivatives decide."""
    if not figures["fd_error"] <= figures["fd_bound"]:
        limits = node_reach(evidence.floor)
        message = against_differences(evidence.differences, gradient, evidence.floor, limits)
        return Judgement(Verdict.DISAGREE, message, **figures)
    if doubt := _coarseness(evidence):
        return Judgement(Verdict.INCONCLUSIVE, doubt, **figures)
    message = "" if is_referee else "judged by finite differences, as no reference stands"
    return Judgement(Verdict.AGREE, message, **figures)


def _judge_by_floor(gradient: Array, evidence: TensorEvidence, figures: dict[str, Any]) -> Judgement:
    floor, error, limits = evidence.floor, evidence.reference.error_of(gradient), node_reach(evidence.floor)
    is_true = evidence.standing is Standing.VALIDATED
    distance = norm(error)
    by_norm = over(distance, floor.norm) / limits.norm
    by_element = over(np.abs(error), floor.elements) / limits.element
    figures |= {"error": distance, "ratio": max(float(by_norm), float(np.max(by_element)))}
    figures |= _at_worst(error, evidence)
    if not figures["ratio"] <= 1:
        index = int(np.argmax(by_element))
        wrong = Judgement(Verdict.DISAGREE, _against_reference(gradient, evidence, index), **figures)
        return wrong if is_true else _looked_closer(gradient, evidence, index, wrong)
    if not is_true and (doubt := _coarseness(evidence)):
        return Judgement(Verdict.INCONCLUSIVE, doubt, **figures)
    if not _is_zero(evidence) and norm(evidence.reference.high) <= _limit(evidence):
        message = "rounding in this dtype is as large as the gradient: a zero would pass"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    return Judgement(Verdict.AGREE, **figures)


def _at_worst(error: Array, evidence: TensorEvidence) -> dict[str, float]:
    """The largest error of an element, and in units in the last place of what the element should be."""
    index = int(np.argmax(np.abs(error)))
    largest, true = abs(float(error.reshape(-1)[index])), float(evidence.reference.high.reshape(-1)[index])
    return {"worst": largest} | ({} if _is_zero(evidence) else {"ulps": largest / spacing(true, evidence.dtype)})


def _looked_closer(gradient: Array, evidence: TensorEvidence, index: int, wrong: Judgement) -> Judgement:
    """On one that differs from a gradient in float64, which differences confirmed where they were taken: one more is
    taken where the two differ most, and says which of them is wrong, or neither."""
    differences = evidence.differences.with_probes(evidence.closer(index))
    floor, limits = evidence.floor, node_reach(evidence.floor)
    error, bound = worst(differences, gradient, floor, limits)
    figures: dict[str, Any] = {"fd_error": error, "fd_bound": bound}
    if confirms(evidence.reference.high, evidence.dtype, lambda: floor, differences):
        if not error <= bound:
            return replace(wrong, **figures)
        message = "beyond the noise floor, yet finite differences cannot tell which of the two is right"
        return replace(wrong.instead(Verdict.INCONCLUSIVE, message), doubted=True, **figures)
    known = {name: getattr(wrong, name) for name in ("floor", "limit", "limit_element")}
    by_differences = replace(evidence, differences=differences)
    return replace(_judge_by_differences(gradient, by_differences, known | figures, False), doubted=True)


def _coarseness(evidence: TensorEvidence) -> str:
    """Why finite differences confirm nothing; a gradient that is zero by structure is confirmed by being small."""
    return "" if _is_zero(evidence) else coarse(evidence.differences, evidence.reference.high)


def _is_zero(evidence: TensorEvidence) -> bool:
    """Whether the gradient is zero by structure (a bias before batch norm): float64 computes nothing but noise,
    and finite differences, which would see one that matters, do not object. Or no path leads to it."""
    size = norm(evidence.reference.high)
    if not evidence.reached:
        return True
    if evidence.standing in (Standing.VALIDATED, Standing.KINKED):
        return size * evidence.size <= ZERO * evidence.scale
    is_noise = size <= _narrowing(evidence.dtype) * _limit(evidence)
    return is_noise and confirm_zero(evidence.differences, evidence.size, evidence.scale)


def _limit(evidence: TensorEvidence) -> float:
    return node_reach(evidence.floor).norm * evidence.floor.norm


def _coarsest(evidence: TensorEvidence) -> float:
    """The detection limit of the element that rounds most."""
    return node_reach(evidence.floor).element * float(np.max(evidence.floor.elements, initial=0.0))


def _narrowing(dtype: str) -> float:
    """How much finer float64 rounds."""
    return find_dtype("float64").unit_roundoff / find_dtype(dtype).unit_roundoff


def _against_reference(gradient: Array, evidence: TensorEvidence, worst_index: int) -> str:
    place = [int(i) for i in np.unravel_index(worst_index, gradient.shape)]
    got, expected = float(gradient.reshape(-1)[worst_index]), float(evidence.reference.high.reshape(-1)[worst_index])
    size, error = norm(evidence.reference.high), norm(evidence.reference.error_of(gradient))
    part = f"{error:.3g} where it is 0" if size == 0 or _is_zero(evidence) else f"{error / size:.2g} of its norm"
    by_norm = float(over(error, evidence.floor.norm))
    alone = float(over(abs(got - expected), float(evidence.floor.elements.reshape(-1)[worst_index])))
    also = "" if by_norm > node_reach(evidence.floor).norm else f" ({floors(alone)} of this element)"
    return (
        f"off by {part}, {floors(by_norm)}; "
        f"worst at {place}: {got:.9g}, expected {expected:.9g}{also}{_numeric(evidence, worst_index)}"
    )


def _numeric(evidence: TensorEvidence, index: int) -> str:
    for probe in evidence.differences.probes:
        if probe.index == index:
            return f", finite difference {probe.value:.9g} +- {probe.bound:.1g}"
    return ""
