"""What averages of a gradient say that its elements do not: a factor near 1, and sums that are kept in few digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.projections import EVENLY, Projections
from gradwitness.evidence.reach import FALSE_ALARM
from gradwitness.verdict.verdicts import Judgement, Verdict

__all__ = ["Beside", "judged_by_averages"]

MORE = 4.0  # times what another kernel of the same dtype loses: a rounding or two more are no sum kept in few digits
AS_ALL_ROUND = 0.67 * EVENLY  # the median of an error over its noise, if every operation rounds
NORMAL = 0.37  # elements of which the median is known as well as the mean square of one: of the normal law
SUSPECT = frozenset({Verdict.AGREE, Verdict.INCONCLUSIVE, Verdict.DISAGREE})


@dataclass(frozen=True)
class Beside:
    """A kernel that is known to be right, in the dtype on trial. narrow: the floor of sums that are kept in that dtype,
    one term after another."""

    label: str
    dtype: str
    narrow: Callable[[], TensorFloor]


def judged_by_averages(found: Judgement, seen: Projections, beside: Beside) -> Judgement:
    """The judgement by norm and element, with what averages say."""
    if found.verdict not in SUSPECT:
        return found
    found = replace(found, factor=seen.limit, ratio=max(found.ratio or 0.0, seen.ratio))
    if _keeps_sums_narrow(found, seen, beside):
        more = seen.error / seen.beside
        message = (
            f"it loses {more:.2g} times what {beside.label!r} loses in {beside.dtype} at the same inputs, as where a "
            "sum is kept in so few digits: add up in float32"
        )
        return found.instead(Verdict.REDUCED_PRECISION, message)
    if seen.ratio <= 1:
        return replace(found, message="; ".join(filter(None, [found.message, _left_out(seen, beside)])))
    factor, reach = 1 + seen.found[seen.worst], seen.reach[seen.worst]
    message = f"{factor:.5g} times what it should be {seen.where}, where rounding explains 1 +- {reach:.1g}"
    if found.verdict is Verdict.DISAGREE:
        message = f"{found.message}; {message}"
    return found.instead(Verdict.DISAGREE, message)


def _left_out(seen: Projections, beside: Beside) -> str:
    """What averages say nothing of."""
    return f"{seen.tiny} of its elements are subnormal in {beside.dtype}, and left out of averages" if seen.tiny else ""


def _keeps_sums_narrow(found: Judgement, seen: Projections, beside: Beside) -> bool:
    """Whether the elements lose far more than those of the other kernel, without a pattern: as much as sums would that
    are kept in few digits, and no more."""
    if seen.has_pattern or not seen.error > AS_ALL_ROUND or not seen.error > _told_apart(seen.elements) * seen.beside:
        return False
    assert found.error is not None
    return found.error <= beside.narrow().norm


def _told_apart(elements: int) -> float:
    """By how much medians of so many errors differ for certain, where both kernels lose the same: by the law of F."""
    from scipy.special import fdtri

    freedom = NORMAL * elements
    return max(MORE, math.sqrt(float(fdtri(freedom, freedom, 1 - FALSE_ALARM))))
