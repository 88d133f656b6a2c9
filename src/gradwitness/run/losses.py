"""The losses that candidates give: each with its gradient and without, and all against the first or the graph's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.neighbours import Neighbours
from gradwitness.evidence.noise_floor import TensorFloor, joint
from gradwitness.evidence.reach import JITTER_REACH, Reach, node_reach
from gradwitness.problem import Problem
from gradwitness.protocol import Primals
from gradwitness.run.own_loss import OwnLoss
from gradwitness.run.witness import OfGraph, Witness
from gradwitness.verdict import Judgement
from gradwitness.verdict.losses import judge_alone, judge_loss
from gradwitness.verdict.verdicts import place_of

__all__ = ["alone_and_beside", "compared", "first_of"]

SAME = 4.0  # units of roundoff that two answers to the same question may differ by unlooked into


def alone_and_beside(witness: Witness) -> Judgement | None:
    """Whether the loss that comes with a gradient is the one that comes without."""
    by_hand = witness.candidate.is_written_by_hand
    if not isinstance(witness, OwnLoss) or not witness.is_steady or (by_hand and not _has_both(witness)):
        return None
    alone, beside = witness.tried.prepared.value(witness.problem.primals), witness.tried.losses[0]
    if _are_near([beside], [alone], witness.known.dtype):
        return None
    floor = witness.known.loss_floor({}, alone)
    found = judge_loss([beside], [alone], [floor], reach=_jitter_reach)
    said = _beside_loss if by_hand else _where_differentiated
    return found and found.instead(found.verdict, said(witness, beside, alone))


def first_of(witnesses: Sequence[Witness]) -> OwnLoss | None:
    """The first loss of its own that is finite and steady, against which the others are held."""
    own = (w for w in witnesses if isinstance(w, OwnLoss))
    return next((w for w in own if w.is_steady and all(map(math.isfinite, w.tried.losses))), None)


def _not_finite(problem: Problem) -> str:
    """The first array of the batch that holds a NaN or an infinity, in words; empty where there is none."""
    for path, x in problem.leaves.items():
        if x.dtype.kind == "f" and (wrong := np.flatnonzero(~np.isfinite(x))).size:
            place = place_of(int(wrong[0]), x.shape)
            return f"{path} has {wrong.size} of {x.size} numbers that are NaN or infinite, the first at {place}"
    return ""


def compared(witness: Witness, first: Witness, neighbours: Neighbours | None, dtype: str) -> Judgement | None:
    """Whether a loss, at the point and at its neighbours, is the graph's, or that of the first; None if it is."""
    losses = witness.tried.losses
    if isinstance(witness, OfGraph):
        known = witness.known
        if _are_near(losses, known.losses, dtype):
            return None
        return judge_loss(losses, known.losses, known.loss_floors_of(witness.arithmetic))
    if witness is first:
        return judge_alone(losses[0], _not_finite(witness.problem))
    assert isinstance(witness, OwnLoss)
    assert isinstance(first, OwnLoss)
    if _are_near(losses, first.tried.losses, dtype):
        return None
    places: list[Primals] = [{}, *(neighbours or ())]
    spreads = [_joint_floor(first, witness, number, place) for number, place in enumerate(places)]
    by_node = first.known.floors.by_node and witness.known.floors.by_node
    reach = node_reach if by_node else _jitter_reach
    return judge_loss(losses, first.tried.losses, spreads, reach=reach, whose=repr(first.label))


def _are_near(losses: Sequence[float], others: Sequence[float], dtype: str) -> bool:
    """Whether they are the same but for a few roundings, so that no floor need be known."""
    part = SAME * find_dtype(dtype).unit_roundoff
    return all(abs(a - b) <= part * abs(b) for a, b in zip(losses, others, strict=True))


def _joint_floor(first: OwnLoss, witness: OwnLoss, number: int, place: Primals) -> TensorFloor:
    """What rounding explains of the distance of two losses at one place; a loss of NaN excuses nothing."""
    a = first.known.loss_floor(place, first.tried.losses[number])
    b = witness.known.loss_floor(place, witness.tried.losses[number])
    return joint(a, b) if math.isfinite(b.norm) else a


def _has_both(witness: Witness) -> bool:
    """Whether a loss comes with the gradient, and another is given beside it."""
    return witness.candidate.value_and_gradient is not None and witness.candidate.loss is not None


def _beside_loss(witness: Witness, beside: float, alone: float) -> str:
    return f"value_and_gradient gives a loss of {beside:.9g} where loss gives {alone:.9g}"


def _where_differentiated(witness: Witness, beside: float, alone: float) -> str:
    """A rule may have a forward of its own for the backward, which has to give what the function gives."""
    message = f"the loss is {beside:.9g} where it is differentiated, and {alone:.9g} where it is not"
    ran = ", ".join(dict.fromkeys(rule.name for rule in witness.rules or () if rule.ran))
    return f"{message}; do the two forwards of {ran} give the same?" if ran else message


def _jitter_reach(floor: TensorFloor) -> Reach:
    """The same for every floor that jittered inputs give."""
    return JITTER_REACH
