"""The verdicts, and what one rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import UnknownName

__all__ = ["ACCEPTED", "Judgement", "Verdict", "defect", "expect_verdicts", "place_of"]


class Verdict(StrEnum):
    """The verdict on one gradient of one candidate, from best to worst. It is a string, such as "agree"."""

    AGREE = "agree"
    CONVENTION = "convention"
    INTENDED = "intended"
    UNSUPPORTED = "unsupported"
    INCONCLUSIVE = "inconclusive"
    REDUCED_PRECISION = "reduced-precision"
    NONFINITE = "nonfinite"
    MISSING = "missing"
    NONDETERMINISTIC = "nondeterministic"
    DISAGREE = "disagree"
    DIFFERENT_LOSS = "different-loss"
    ERROR = "error"


ACCEPTED = frozenset({Verdict.AGREE, Verdict.CONVENTION, Verdict.INTENDED, Verdict.UNSUPPORTED})


def expect_verdicts(names: Iterable[str]) -> None:
    """Raise UnknownName for one that is not there."""
    for name in names:
        if name not in list(Verdict):
            raise UnknownName("verdict", name, Verdict)


@dataclass(frozen=True)
class Judgement:
    """A verdict with the figures that it rests on; errors and floors are absolute, by norm.

    verdict: the Verdict. message: the reason, in one line; empty if there is nothing to add.
    error: the distance from the reference; floor: how much of it rounding explains.
    worst: the largest error of an element; ulps: the same in units in the last place of its true value.
    ratio: the larger of error / floor over its threshold, by norm and by element; at most 1 agrees.
    fd_error, fd_bound: the distance from the numerical derivative at the worst probe, and its bound.
    limit: the smallest error by norm that would have been caught; limit_element: the same for a single element,
    whichever it is.
    factor: the smallest constant factor that would have been caught, less 1, where averages were taken.
    seen, unseen: how many elements differences saw one by one, and how many they could not see.
    left, right: at a kink, the one-sided derivatives of the loss by the element that the message names.
    doubted: the referee may be at fault instead.

    docs/verdict.md has the formulas: floors in section 4, thresholds and limits in section 5.
    """

    verdict: Verdict
    message: str = ""
    error: float | None = None
    floor: float | None = None
    ratio: float | None = None
    fd_error: float | None = None
    fd_bound: float | None = None
    limit: float | None = None
    limit_element: float | None = None
    factor: float | None = None
    worst: float | None = None
    ulps: float | None = None
    seen: int | None = None
    unseen: int | None = None
    left: float | None = None
    right: float | None = None
    doubted: bool = False

    def instead(self, verdict: Verdict, message: str) -> Judgement:
        """Another verdict on the same figures."""
        return replace(self, verdict=verdict, message=message, doubted=False)


def defect(gradient: Array | None, shape: tuple[int, ...], *, reached: bool, also: str = "") -> Judgement | None:
    """What is wrong with a gradient before any of its values is looked at; None if nothing is.

    reached: whether a path leads from the leaf to the loss. also: what to add if it is not finite.
    """
    if gradient is None:
        if reached:
            return Judgement(Verdict.MISSING, "None, though a path leads from this parameter to the loss")
        return None
    if gradient.shape != shape:
        return Judgement(Verdict.ERROR, f"the gradient has shape {gradient.shape}, its parameter {shape}")
    bad = int(np.count_nonzero(~np.isfinite(gradient)))
    if bad:
        return Judgement(Verdict.NONFINITE, f"{bad} of {gradient.size} elements are NaN or infinite{also}")
    return None


def place_of(index: int, shape: tuple[int, ...]) -> list[int]:
    """The indices of the element with this flat index, as messages show them."""
    return [int(i) for i in np.unravel_index(index, shape)]
