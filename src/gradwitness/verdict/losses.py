"""Do two candidates compute the same loss? That is asked before any gradient is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.reach import Reach, floors, node_reach, over
from gradwitness.verdict.verdicts import Judgement, Verdict

__all__ = ["judge_alone", "judge_loss"]

NARROWER = {32: 4 * 2.0**-24, 16: 2.0**-8}  # by the bits of a dtype, the part of a loss that rounding inside may leave
SURELY = 1e-3  # of that part: rounding inside leaves more, though errors cancel


def judge_alone(loss: float, also: str = "") -> Judgement | None:
    """What is wrong with a loss where no other says what it should be. also: what may be the cause."""
    if np.isfinite(loss):
        return None
    message = f"the loss is {loss} at the given point: there is nothing to differentiate"
    return Judgement(Verdict.NONFINITE, f"{message}; {also}" if also else message)


def judge_loss(
    losses: Sequence[float],
    references: Sequence[float],
    spreads: Sequence[TensorFloor],
    *,
    reach: Callable[[TensorFloor], Reach] = node_reach,
    whose: str = "the reference",
) -> Judgement | None:
    """What is wrong with a loss: whether it is that of the reference, or of another candidate, at every point.

    The first point is the problem's own, the others its neighbours. spreads: the floors of the loss;
    reach: how many of one of them rounding may reach.
    """
    doubt = None
    for place, (loss, reference, floor) in enumerate(zip(losses, references, spreads, strict=True)):
        if not (np.isfinite(reference) and np.isfinite(floor.norm)):
            continue
        where = "at the given point" if place == 0 else f"at seeded neighbour {place} (not at the given point)"
        if not np.isfinite(loss):
            message = f"the loss is {loss} {where}; that of {whose} is {reference:.9g}"
            return Judgement(Verdict.DIFFERENT_LOSS, message)
        ratio = float(over(abs(loss - reference), floor.norm))
        limits = reach(floor)
        if ratio <= limits.norm:
            continue
        size = f"{floors(ratio)} of the loss"
        message = f"the losses differ {where}: {loss:.17g} against {reference:.17g} of {whose}, {size}"
        if not ratio <= limits.beyond_doubt.norm:
            return Judgement(Verdict.DIFFERENT_LOSS, message + _likely_cause(loss, reference, floor.norm))
        doubt = Judgement(
            Verdict.INCONCLUSIVE, f"{message}: not sure to be more than rounding (does it cancel large numbers?)"
        )
    return doubt


def _likely_cause(loss: float, reference: float, floor: float) -> str:
    """What the size of the difference suggests: narrower numbers inside, if rounding to them leaves as much."""
    for bits, part in NARROWER.items():
        left = part * abs(reference)
        if max(floor, SURELY * left) < abs(loss - reference) <= left:
            return f"; rounding to {bits} bits leaves as much: does one of them cast, or run under autocast?"
    return ""
