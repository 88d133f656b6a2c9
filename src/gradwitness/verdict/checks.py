"""The verdict on one gradient: an ordered list of checks, the first of which that has something to say decides.

A gradient agrees if its distance from the truth is what rounding explains, and no gradient that is wrong by more than
the printed limit could have passed in its place. The truth is the reference of a graph, or a user's own gradient in
float64, as far as finite differences bear it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradwitness.dtypes import Array, find_dtype, spacing
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.groups import NEGLIGIBLE
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import Reach, floors, over
from gradwitness.evidence.reference import exactly
from gradwitness.evidence.sight import Refutation, Sight
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict, defect, place_of

__all__ = ["CHECKS", "Distance", "compare", "judge", "refutation"]

COARSE = 1e-2  # of the norm: a gradient of right formula that is farther off in its dtype is wrong whatever rounds
BLUNT = 1e-10  # of the largest product: a zero that differences tell no better says so
SPACINGS = 16  # of subnormal numbers: what their rounding may reach
TRIFLE = 1 / 32  # of a rounding of the dtype on trial: what is wrong by less in float64 accuses nobody there


@dataclass(frozen=True)
class Distance:
    """Of two gradients: by norm, and over what rounding may reach (at most 1: equal but for rounding)."""

    error: float
    ratio: float


def compare(error: Array, floor: TensorFloor, reach: Reach, *, lost: Array | float = 0.0) -> Distance:
    """How large an error is; the ratio is the larger of by norm and by element, infinite where one is NaN.

    lost: what each element may lose beside, as where subnormal numbers become zero.
    """
    left = np.maximum(np.abs(error) - lost, 0.0)
    if np.any(np.isnan(left)):
        return Distance(math.nan, math.inf)
    by_norm = float(over(norm(left), floor.norm)) / reach.norm
    by_element = float(np.max(over(left, floor.elements), initial=0.0)) / reach.element
    return Distance(norm(error), max(by_norm, by_element))


@dataclass(frozen=True)
class _Case:
    """A gradient as it was given, and what it is judged by."""

    given: Array | None
    evidence: LeafEvidence

    @cached_property
    def gradient(self) -> Array:
        """In float64; None as zeros."""
        shape = self.evidence.truth.high.shape
        return np.zeros(shape) if self.given is None else self.given.astype(np.float64)

    @cached_property
    def error(self) -> Array:
        return self.evidence.truth.error_of(self.gradient)

    @cached_property
    def distance(self) -> Distance:
        e = self.evidence
        return compare(self.error, e.floor, e.reach, lost=e.lost)

    @property
    def is_beyond_loss(self) -> bool:
        """Whether it is near the truth only if subnormal numbers have become zero, which hardly makes a result larger,
        or turns its sign."""
        e, truth = self.evidence, self.evidence.truth.high
        few = SPACINGS * find_dtype(e.dtype).smallest_subnormal
        lost = (np.abs(self.gradient) <= np.abs(truth) + few) & (self.gradient * np.sign(truth) >= -few)
        return compare(self.error, e.floor, e.reach, lost=np.where(lost, e.lost, 0.0)).ratio > 1

    @cached_property
    def is_apart(self) -> bool:
        """Whether there is a distance to speak of: from another gradient than itself."""
        return self.evidence.narrowed or self.evidence.standing in (Standing.VALIDATED, Standing.CONFIRMED)

    @cached_property
    def figures(self) -> dict[str, Any]:
        e = self.evidence
        found: dict[str, Any] = {"floor": e.floor.norm, "limit": e.limit, "limit_element": e.limit_element}
        if e.sight is not None:
            found |= {"seen": e.sight.seen, "unseen": e.sight.unseen}
        if probes := [*e.probes, *(() if e.sight is None else e.sight.probes)]:
            error, bound = max((self.at(probe) for probe in probes), key=lambda pair: float(over(*pair)))
            found |= {"fd_error": error, "fd_bound": bound}
        if self.is_apart and not e.is_referee:
            found |= {"error": self.distance.error, "ratio": self.distance.ratio}
            found |= self._worst() if not e.narrowed else {}
        return found

    def at(self, probe: Probe) -> tuple[float, float]:
        """(distance from a difference, what it may be)."""
        e = self.evidence
        if probe.direction is not None:
            slack = e.reach.norm * norm(probe.direction * e.floor.elements)
        else:
            slack = e.reach.element * float(e.floor.elements.reshape(-1)[probe.index])
        return abs(probe.of(self.gradient) - probe.value), probe.bound + slack

    def _worst(self) -> dict[str, float]:
        """The largest error of an element, and in units in the last place of what the element should be."""
        index = int(np.argmax(np.abs(self.error)))
        largest, true = abs(float(self.error.flat[index])), float(self.evidence.truth.high.flat[index])
        found = {"worst": largest}
        return found if self.evidence.is_zero else found | {"ulps": largest / spacing(true, self.evidence.dtype)}

    def says(self, verdict: Verdict, message: str = "", **more: Any) -> Judgement:
        return Judgement(verdict, message, **(self.figures | more))


def judge(gradient: Array | None, evidence: LeafEvidence) -> Judgement:
    """The verdict on one gradient (None: the framework found no path to the loss)."""
    case = _Case(gradient, evidence)
    for check in CHECKS:
        if (found := check(case)) is not None:
            return found
    return case.says(Verdict.AGREE, _by_whom(evidence))


def _by_whom(evidence: LeafEvidence) -> str:
    """What to say beside `agree`."""
    if evidence.standing is Standing.REFUTED:
        return "judged by finite differences, as no reference stands"
    return evidence.remark


def _defective(case: _Case) -> Judgement | None:
    """None, of another shape, or not finite."""
    e = case.evidence
    moves = e.sight is not None and e.sight.refuted is not None
    reached = moves if e.reached is None else e.reached
    undefined = e.standing is not Standing.OWN and not np.all(np.isfinite(e.truth.high))
    found = defect(case.given, e.truth.high.shape, reached=reached, also="; the reference is too" if undefined else "")
    if found is None or e.sight is None or e.standing is not Standing.OWN:
        return found
    return replace(found, limit=e.limit) if found.verdict is Verdict.MISSING else found


def _undefined(case: _Case) -> Judgement | None:
    if np.all(np.isfinite(case.evidence.truth.high)):
        return None
    where = "the reference" if case.evidence.standing is not Standing.OWN else "the gradient in float64"
    return Judgement(Verdict.INCONCLUSIVE, f"{where} is NaN or infinite here, this one is not")


def _at_kink(case: _Case) -> Judgement | None:
    e = case.evidence
    if e.standing is Standing.KINKED and e.kink is not None:
        return e.kink.judge(case.gradient, is_zero=e.is_zero)
    return None


def _overflowing(case: _Case) -> Judgement | None:
    e = case.evidence
    if np.isfinite(e.floor.norm) and np.all(np.isfinite(e.floor.elements)):
        return None
    if e.standing is Standing.OWN:
        message = "as its inputs move by a rounding, the gradient leaves its range"
        return _refuted(case) or Judgement(Verdict.INCONCLUSIVE, message)
    return Judgement(Verdict.INCONCLUSIVE, "rounding in this dtype can make the gradient overflow here")


def _without_reference(case: _Case) -> Judgement | None:
    """Where the reference does not stand, differences of the graph judge the gradient itself."""
    e = case.evidence
    if e.standing is not Standing.REFUTED or e.sight_of is None:
        return None
    return judge(case.given, replace(e, truth=exactly(case.gradient), sight=e.sight_of(case.gradient), sight_of=None))


def _refuted(case: _Case) -> Judgement | None:
    """By differences: the formula is wrong, whatever the dtype rounds."""
    e = case.evidence
    if e.sight is None or e.sight.refuted is None or e.standing is Standing.CONFIRMED:
        return None
    if e.narrowed and e.another_loss:
        found = refutation(e.sight.refuted, e.truth.high.shape)
        message = f"its loss is another in float64 ({e.another_loss}), and there {found}"
        return case.says(Verdict.INCONCLUSIVE, message)
    if e.narrowed and _is_below_its_rounding(case.evidence, e.sight.refuted):
        found = refutation(e.sight.refuted, e.truth.high.shape)
        message = f"in float64 {found}; that is far less than a rounding in {e.dtype}"
        return case.says(Verdict.INCONCLUSIVE, message)
    shown = _as_given(case, e.sight.refuted) if e.narrowed else e.sight.refuted
    prefix = "" if shown is not None else "in float64 "
    message = prefix + refutation(shown or e.sight.refuted, e.truth.high.shape) + e.hint()
    return case.says(Verdict.DISAGREE, message, **_seen_at(e.sight.refuted))


def _is_below_its_rounding(evidence: LeafEvidence, refuted: Refutation) -> bool:
    """Whether what is refuted in float64 is off by far less than the dtype on trial rounds, as a framework's special
    functions may be."""
    probe, truth = refuted.probe, evidence.truth.high
    moved = abs(refuted.claim) if probe.direction is None else norm(probe.direction * truth)
    return abs(refuted.claim - probe.value) <= TRIFLE * find_dtype(evidence.dtype).unit_roundoff * moved


def _as_given(case: _Case, refuted: Refutation) -> Refutation | None:
    """The same of the gradient in the dtype on trial, if its rounding does not hide it."""
    probe = refuted.probe
    if probe.index is None:
        return None
    distance, allowed = case.at(probe)
    return Refutation(probe, float(case.gradient.flat[probe.index])) if distance > allowed else None


def _seen_at(refuted: Refutation) -> dict[str, float | None]:
    """The figures of a refutation: how far it is from a gradient that is refuted itself says nothing."""
    told = {"fd_error": abs(refuted.claim - refuted.probe.value), "fd_bound": refuted.probe.bound}
    return {"error": None, "ratio": None, "worst": None, "ulps": None} | told


def refutation(refuted: Refutation, shape: tuple[int, ...]) -> str:
    """Where differences refute a gradient of this shape, in words."""
    probe = refuted.probe
    place = "along a Gaussian direction" if probe.index is None else f"at {place_of(probe.index, shape)}"
    found, expected = _told_apart(refuted.claim, probe.value)
    return f"finite differences refute it {place}: {found}, finite difference {expected} +- {probe.bound:.1g}"


def _told_apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers in as many digits as tell them apart."""
    digits = 9 if f"{a:.9g}" != f"{b:.9g}" else 17
    return f"{a:.{digits}g}", f"{b:.{digits}g}"


def _distant(case: _Case) -> Judgement | None:
    """Beyond the floor from the truth."""
    e = case.evidence
    if not case.is_apart or e.is_referee or case.distance.ratio <= 1:
        return None
    if e.narrowed:
        return _rounded_away(case)
    wrong = case.says(Verdict.DISAGREE, _against_truth(case))
    return _unless_near_a_kink(wrong if e.is_true else _looked_closer(case, wrong), case)


def _rounded_away(case: _Case) -> Judgement:
    """Right in float64, and farther from there in its dtype than rounding is known to explain."""
    e = case.evidence
    by_norm, size = float(over(case.distance.error, e.floor.norm)), norm(e.truth.high)
    index = int(np.argmax(over(np.abs(case.error), e.floor.elements)))
    place = place_of(index, case.error.shape)
    alone = float(over(abs(case.error.flat[index]), e.floor.elements.flat[index]))
    far = floors(by_norm) if by_norm > e.reach.norm else f"{floors(alone)} at {place}"
    message = f"right in float64, but {far} from there in {e.dtype}"
    if e.another_loss:
        also = f"so does the loss ({e.another_loss}): leave that out, or verify it in float64 alone"
        return case.says(Verdict.INCONCLUSIVE, f"{message}; {also}")
    is_far = not by_norm <= e.reach.beyond_doubt.norm and case.distance.error > COARSE * size
    if e.reach.certain == 0.0 or is_far:
        return case.says(Verdict.DISAGREE, f"{message}: more than rounding explains")
    # Digits that every run loses alike (of v in v + 1e4) move no spread: below a hundredth that may be it.
    return case.says(Verdict.INCONCLUSIVE, f"{message}, most at {place}: more than rounding is known to explain")


def _looked_closer(case: _Case, wrong: Judgement) -> Judgement:
    """On one that differs from a gradient in float64, which differences confirmed.

    Where the two are too near for those differences to tell, one more is taken where they differ most. It says which
    of them is wrong, or neither.
    """
    e, sight = case.evidence, case.evidence.sight
    assert sight is not None
    if case.distance.error > sight.limit or np.max(np.abs(case.error)) > sight.limit_element:
        return wrong
    index = int(np.argmax(over(np.abs(case.error), e.floor.elements)))
    for probe in e.closer(index):
        mine, other = float(case.gradient.flat[index]), float(e.truth.high.flat[index])
        slack = e.reach.element * float(e.floor.elements.flat[index])
        if abs(other - probe.value) > probe.bound:
            own = Refutation(probe, mine)
            is_right = abs(mine - probe.value) <= probe.bound + slack
            verdict = Verdict.INCONCLUSIVE if is_right else Verdict.DISAGREE
            return replace(wrong.instead(verdict, refutation(own, e.truth.high.shape)), doubted=True)
        if abs(mine - probe.value) > probe.bound + slack:
            return wrong
    message = "beyond the noise floor, yet finite differences cannot tell which of the two is right"
    return replace(wrong.instead(Verdict.INCONCLUSIVE, message), doubted=True)


def _unless_near_a_kink(judgement: Judgement, case: _Case) -> Judgement:
    """The judgement, or that at the kink where slopes there give the gradient.

    Units within rounding of a kink may be on either side of it. Then the floor is as wide as the jump between the
    sides, or has not seen it, and a floor at fixed slopes tells more.
    """
    e = case.evidence
    if judgement.verdict is Verdict.AGREE or e.kink is None or not e.kink.matters:
        return judgement
    found = e.kink.judge(case.gradient, is_zero=e.is_zero)
    return found if found.verdict in ACCEPTED else judgement


def _unseen(case: _Case) -> Judgement | None:
    """Where a wrong gradient could have passed."""
    e = case.evidence
    if e.is_true:
        return None
    if e.sight is None:
        return case.says(Verdict.INCONCLUSIVE, "no finite difference is usable here: nothing confirms anything")
    if not e.sight.unseen:
        if e.sight.faint and not e.is_noise:
            message = "finite differences are too coarse for so small a gradient; a wrong one could pass"
            return case.says(Verdict.INCONCLUSIVE, message)
        matters = NEGLIGIBLE * e.scale < e.sight.limit * e.size < np.inf
        if matters and e.sight.limit > norm(e.truth.high) and not e.is_noise:
            message = f"an error of {e.sight.limit:.2g} by norm could pass, as some elements are far below their leaf"
            return case.says(Verdict.INCONCLUSIVE, message)
        return _zero(case)
    if e.sight.still and e.is_vouched:
        message = "nothing leads to the loss: it stays the same wherever the parameters are moved"
        return case.says(Verdict.AGREE, message)
    return case.says(Verdict.INCONCLUSIVE, _what_is_unseen(e.sight, e.truth.high.shape))


def _zero(case: _Case) -> Judgement | None:
    """A gradient of zeros agrees, however blunt the differences are beside it, and says so where they are."""
    e = case.evidence
    if e.sight is None or np.any(e.truth.high) or e.reached is False or not e.sight.limit * e.size > BLUNT * e.scale:
        return None
    return case.says(Verdict.AGREE, f"it is zero as far as differences tell: {e.sight.limit:.2g} by norm could pass")


def _what_is_unseen(sight: Sight, shape: tuple[int, ...]) -> str:
    doubt = sight.doubt or "finite differences are too coarse"
    which = (
        "" if sight.at is None else f", {'' if sight.unseen == 1 else 'the largest at '}{place_of(sight.at, shape)},"
    )
    part = "" if sight.unseen >= sight.size else f"{sight.unseen} of {sight.size} elements{which} could not be seen: "
    return f"{part}{doubt}; a wrong one could pass"


def _flushed(case: _Case) -> Judgement | None:
    """Where subnormal numbers may have become zero, and that is all that holds it near the truth."""
    e = case.evidence
    if not case.is_apart or e.is_referee or compare(case.error, e.floor, e.reach).ratio <= 1:
        return None
    is_all = norm(e.lost) + e.reach.norm * e.floor.norm >= norm(e.truth.high) and not e.is_zero
    if not is_all and not case.is_beyond_loss:
        return None
    return case.says(Verdict.INCONCLUSIVE, "subnormal numbers may become zero in this dtype: a zero would pass")


def _drowned(case: _Case) -> Judgement | None:
    """Where rounding in the dtype is as large as the gradient."""
    e = case.evidence
    size = norm(e.truth.high)
    if size > e.reach.norm * e.floor.norm or e.is_referee or e.is_zero:  # the last may take runs
        return None
    if e.standing is Standing.OWN and not e.narrowed:
        return None  # differences have seen it, in the dtype on trial
    message = "rounding in this dtype is as large as the gradient: a zero would pass"
    return _unless_near_a_kink(case.says(Verdict.INCONCLUSIVE, message), case)


CHECKS: tuple[Callable[[_Case], Judgement | None], ...] = (
    _defective,
    _undefined,
    _at_kink,
    _overflowing,
    _without_reference,
    _refuted,
    _distant,
    _unseen,
    _flushed,
    _drowned,
)


def _against_truth(case: _Case) -> str:
    e = case.evidence
    index = int(np.argmax(over(np.abs(case.error), e.floor.elements)))
    place = place_of(index, case.error.shape)
    got, expected = _told_apart(float(case.gradient.flat[index]), float(e.truth.high.flat[index]))
    size, error = norm(e.truth.high), case.distance.error
    part = f"{error:.3g} where it is 0" if size == 0 or e.is_zero else f"{error / size:.2g} of its norm"
    by_norm = float(over(error, e.floor.norm))
    alone = float(over(abs(case.error.flat[index]), float(e.floor.elements.flat[index])))
    also = "" if by_norm > e.reach.norm else f" ({floors(alone)} of this element)"
    numeric = next((p for p in e.probes if p.index == index), None)
    seen = "" if numeric is None else f", finite difference {numeric.value:.9g} +- {numeric.bound:.1g}"
    return f"off by {part}, {floors(by_norm)}; worst at {place}: {got}, expected {expected}{also}{seen}"
