"""The verdict at a kink: is there a choice of local slopes that gives this gradient?

The vocabulary's own choice is `agree`, any other `convention`; a gradient that none gives is `disagree`. Beside it
stand the one-sided derivatives of the whole loss. A difference across a kink has no say: the mean of both sides is no
evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Differencing
from gradwitness.evidence.kinks import Choice, Kinked
from gradwitness.evidence.local_slopes import Fit, LocalSlopes
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import floors, node_reach, over
from gradwitness.evidence.reference import Exact
from gradwitness.verdict.verdicts import Judgement, Verdict, place_of

__all__ = ["AtKink"]

LOOKED_AT = 8  # elements whose one-sided derivatives are taken


@dataclass(frozen=True)
class AtKink:
    """One leaf's gradient among those that slopes can give, for a candidate whose sums round with this arithmetic.

    base: the gradient at the vocabulary's own slopes.
    """

    slopes: LocalSlopes
    path: str
    base: Exact
    arithmetic: Arithmetic
    differencing: Differencing
    _sides: dict[int, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def matters(self) -> bool:
        """Whether this gradient depends on the choice of slopes."""
        return self.slopes.matters(self.path)

    @cached_property
    def start(self) -> Choice:
        return self.slopes.start

    def error(self, gradient: Array, choice: Choice) -> Array:
        """The gradient less the one that this choice gives."""
        moved = self.slopes.gradient(choice)[self.path] - self.slopes.gradient(self.start)[self.path]
        error: Array = self.base.error_of(gradient) - moved
        return error

    def floor(self, choice: Choice) -> TensorFloor:
        return self.slopes.floors(choice, self.arithmetic)[self.path]

    def ratio(self, gradient: Array, choice: Choice) -> tuple[float, Array]:
        """(error / floor over its threshold, the larger of by norm and by element; the latter by element)."""
        error, floor = self.error(gradient, choice), self.floor(choice)
        limits = node_reach(floor)
        by_element = over(np.abs(error), floor.elements) / limits.element
        return max(float(over(norm(error), floor.norm) / limits.norm), float(np.max(by_element))), by_element

    def sides(self, index: int) -> tuple[float, float, float]:
        """(left, right, bound): the one-sided derivatives of the loss by an element."""
        if index not in self._sides:
            self._sides[index] = self.differencing.one_sided(self.path, index)
        return self._sides[index]

    def judge(self, gradient: Array, *, is_zero: bool) -> Judgement:
        """The verdict where the gradient depends on slopes at a kink. is_zero: it is zero by structure."""
        ratio, _ = self.ratio(gradient, self.start)
        if ratio <= 1:
            return _judge_explained(gradient, self, self.start, is_zero)
        return _explained(gradient, self) or _judge_unexplained(gradient, self)


def _explained(gradient: Array, kink: AtKink) -> Judgement | None:
    """`convention` with the slopes that give this gradient; None where none are found that do."""
    nearest = kink.slopes.nearest(gradient, kink.path)
    if kink.ratio(gradient, nearest)[0] <= 1:
        return _judge_explained(gradient, kink, nearest, is_zero=False)
    fit = _fit(gradient, kink, nearest)
    if fit is None or not kink.ratio(gradient, fit.choice)[0] <= 1:
        return None
    if fit.decisive:
        return _judge_explained(gradient, kink, fit.choice, is_zero=False)
    message = (
        f"slopes chosen unit by unit would give it ({_units(kink.slopes.kinked)} at a kink), "
        "but so many could give almost any gradient"
    )
    return Judgement(Verdict.INCONCLUSIVE, message, **_figures(gradient, kink, fit.choice))


def _fit(gradient: Array, kink: AtKink, start: Choice) -> Fit | None:
    floor = kink.floor(start).elements
    least = float(np.max(floor, initial=0.0)) * 1e-3 or 1e-16 * (float(np.max(np.abs(gradient), initial=0.0)) or 1.0)
    return kink.slopes.fitted(gradient, kink.path, np.maximum(floor, least), start)


def _judge_explained(gradient: Array, kink: AtKink, choice: Choice, is_zero: bool) -> Judgement:
    figures = _figures(gradient, kink, choice)
    size = norm(gradient - kink.error(gradient, choice))
    if not is_zero and 0 < size <= figures["limit"]:
        message = "rounding in this dtype is as large as the gradient: a zero would pass"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    index, outside = _worst_side(gradient, kink)
    left, right, _ = kink.sides(index)
    figures |= {"left": left, "right": right}
    place = place_of(index, gradient.shape)
    sides = f"one-sided derivatives of the loss {left:.6g} and {right:.6g} at {place}"
    if outside:
        sides = f"WARNING: {gradient.reshape(-1)[index]:.6g} is outside the {sides}"
    if choice is kink.start and not outside:
        return Judgement(Verdict.AGREE, f"judged at a kink, by the reference's convention ({_own(kink)})", **figures)
    return Judgement(Verdict.CONVENTION, f"at a kink: {_described(kink, choice)}; {sides}", **figures)


def _judge_unexplained(gradient: Array, kink: AtKink) -> Judgement:
    """Nothing gives it: wrong, unless there are too many slopes to try, and they reach as far as it is off."""
    nearest = min([kink.start, kink.slopes.nearest(gradient, kink.path)], key=lambda c: norm(kink.error(gradient, c)))
    figures = _figures(gradient, kink, nearest)
    error = kink.error(gradient, nearest)
    _, by_element = kink.ratio(gradient, nearest)
    units = _units(kink.slopes.kinked)
    if not kink.slopes.can_fit(gradient.size) and _may_reach(error, kink, nearest):
        message = f"no convention for all units of an op gives it, and {units} at a kink are too many to try one by one"
        return Judgement(Verdict.INCONCLUSIVE, message, **figures)
    index = int(np.argmax(by_element))
    place = place_of(index, gradient.shape)
    got = float(gradient.reshape(-1)[index])
    message = (
        f"no choice of slopes at its kinks ({_own(kink)}) gives it: off by {norm(error):.3g} from the nearest tried, "
        f"{floors(float(over(norm(error), kink.floor(nearest).norm)))}; "
        f"worst at {place}: {got:.9g}, expected {got - float(error.reshape(-1)[index]):.9g}"
    )
    return Judgement(Verdict.DISAGREE, message, **figures)


def _may_reach(error: Array, kink: AtKink, choice: Choice) -> bool:
    """Whether slopes could make up for this error.

    m slopes that move an element by J1, ..., Jm move it by at most sum |J| <= sqrt(m sum J^2) together: sqrt(12 m)
    standard deviations of what uniform draws do, of which `influence` is a sample.
    """
    floor = kink.floor(choice)
    reach = np.sqrt(12 * kink.slopes.places) * kink.slopes.influence[kink.path]
    return bool(np.all(np.abs(error) <= reach + node_reach(floor).element * floor.elements))


def _figures(gradient: Array, kink: AtKink, choice: Choice) -> dict[str, Any]:
    error, floor = kink.error(gradient, choice), kink.floor(choice)
    return {
        "error": norm(error),
        "worst": float(np.max(np.abs(error), initial=0.0)),
        "floor": floor.norm,
        "ratio": kink.ratio(gradient, choice)[0],
        "limit": node_reach(floor).norm * floor.norm,
    }


def _worst_side(gradient: Array, kink: AtKink) -> tuple[int, bool]:
    """The element to show, and whether it lies outside its one-sided derivatives: of those that depend on the slopes
    the most, the one that lies outside the farthest."""
    influence = kink.slopes.influence[kink.path].reshape(-1)
    chosen = [int(i) for i in np.argsort(-influence, kind="stable")[:LOOKED_AT] if influence[i] > 0] or [0]
    excess = {index: _excess(float(gradient.reshape(-1)[index]), kink, index) for index in chosen}
    index = max(excess, key=lambda i: excess[i])
    return index, excess[index] > 0


def _excess(slope: float, kink: AtKink, index: int) -> float:
    """By how much an element lies outside its one-sided derivatives, less what they and rounding may be off."""
    left, right, bound = kink.sides(index)
    floor = kink.floor(kink.start)
    slack = bound + node_reach(floor).element * float(floor.elements.reshape(-1)[index]) + 1e-6 * abs(slope)
    return max(max(min(left, right) - slope, slope - max(left, right)) - slack, 0.0)


def _units(kinked: tuple[Kinked, ...]) -> str:
    count = sum(k.units for k in kinked)
    return f"{count} unit{'s' if count != 1 else ''}"


def _own(kink: AtKink) -> str:
    """The ops at a kink that this gradient depends on, and what the reference takes there."""
    parts = {}
    for k in _moving(kink):
        parts[_name(k)] = f"{_name(k)}: {_slopes(k, k.start)}"
    return ", ".join(parts.values())


def _described(kink: AtKink, choice: Choice) -> str:
    moving = _moving(kink)
    parts = {}
    for k, slopes in zip(kink.slopes.kinked, choice, strict=True):
        others = np.isin(k.unit, k.unit[~np.isclose(slopes, k.start, rtol=1e-6)])  # whole units, as ties need
        if k.kind == "bend":
            others = ~np.isclose(slopes, k.start, rtol=1e-6)
        if np.any(others) and any(k is m for m in moving):
            at = k.only(others)
            taken = f"takes {_slopes(at, slopes[others])} where the reference takes {_slopes(at, at.start)}"
            parts[_name(k)] = f"{_name(k)} ({_units((at,))}) {taken}"
    return ", ".join(parts.values()) or _own(kink)


def _moving(kink: AtKink) -> list[Kinked]:
    kinked = kink.slopes.moving(kink.path)
    return kinked or list(kink.slopes.kinked)


def _name(k: Kinked) -> str:
    place = "" if k.node.line is None else f" ({k.node.line.brief})"
    return f"{k.node.op} {k.where}{place}"


def _slopes(k: Kinked, slopes: Array) -> str:
    if k.kind == "bend":
        low, high = float(np.min(slopes)), float(np.max(slopes))
        is_one = high - low <= 1e-6 * max(abs(low), abs(high))
        return f"slope {low:.6g}" if is_one else f"slopes {low:.3g} to {high:.3g}"
    first = slopes[k.unit == k.unit[0]]
    if k.kind == "tie":
        shown = ", ".join(f"{w:.3g}" for w in first[:4]) + (", ..." if first.size > 4 else "")
        return f"weights {shown}"
    return f"a vector of length {norm(first):.3g}"
