"""Gradients that are meant to differ from the derivative.

No derivative can confirm a straight-through estimator. All candidates must then give the same gradient, each the same
as every other, so that their order does not matter. An adjoint that is right to a tolerance may be off by a stated part
of the leaf's norm, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import Array
from gradwitness.evidence.from_values import SAMPLED
from gradwitness.evidence.norms import norm
from gradwitness.problem import Intention, Problem
from gradwitness.run.own_loss import OwnLoss
from gradwitness.run.peers import joint_floor
from gradwitness.run.trial import Failure, attempt
from gradwitness.run.witness import Witness
from gradwitness.settings import Settings
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.checks import compare

__all__ = ["as_intended"]

UNSURE = 0.4  # of a distance that 64 Gaussian directions measure, five of its standard deviations
MEANT = frozenset({Verdict.DISAGREE, Verdict.INCONCLUSIVE, Verdict.MISSING})  # what a declaration may excuse


def as_intended(witnesses: Sequence[Witness], problem: Problem, settings: Settings) -> None:
    """Change the judgements of gradients that were declared."""
    for path, intention in problem.intentions.items():
        able = [w for w in witnesses if isinstance(w, OwnLoss) and w.is_judged and _given(w, path) is not None]
        apart = _apart(path, intention, able)
        for witness in able:
            found = attempt(partial(_judged, path, intention, witness, apart, settings))
            if isinstance(found, Failure):
                witness.notes.append(f"the intended difference could not be judged ({found.message})")
            else:
                witness.judgements[path] = found


def _apart(path: str, intention: Intention, able: Sequence[OwnLoss]) -> dict[str, str]:
    """Candidates that differ, by label: from whom."""
    found: dict[str, str] = {}
    for one, other in combinations(able, 2):
        if not _match(path, intention, one, other):
            found.setdefault(one.label, other.label)
            found.setdefault(other.label, one.label)
    return found


def _match(path: str, intention: Intention, one: OwnLoss, other: OwnLoss) -> bool:
    a, b = _given(one, path), _given(other, path)
    assert a is not None
    assert b is not None
    if intention.distance is not None:
        return norm(a - b) <= 2 * intention.distance * max(norm(a), norm(b))
    return compare(a - b, *joint_floor(one, other, path)).ratio <= 1


def _judged(path: str, intention: Intention, witness: OwnLoss, apart: dict[str, str], settings: Settings) -> Judgement:
    judgement = witness.judgements[path]
    is_derivative = judgement.verdict is Verdict.AGREE and intention.elements is None
    if witness.label in apart and judgement.verdict in MEANT | {Verdict.AGREE}:
        also = ", and it is the derivative" if is_derivative else ""
        message = f"declared as {intention.reason}, but it differs from that of {apart[witness.label]!r}{also}"
        return judgement.instead(Verdict.DISAGREE, message)
    if is_derivative:
        return replace(judgement, message=f"declared as {intention.reason}, yet it is the derivative")
    if intention.elements is not None:
        return _beside_named_elements(judgement, intention)
    if judgement.verdict not in MEANT:
        return judgement
    if intention.distance is None:
        return judgement.instead(Verdict.INTENDED, intention.reason)
    with registry.backend(witness.address.backend).precision(settings.precision):
        return _within(path, intention.reason, intention.distance, witness, judgement)


def _beside_named_elements(judgement: Judgement, intention: Intention) -> Judgement:
    """The other elements were judged as any; where they agree, these are what was declared."""
    if judgement.verdict is not Verdict.AGREE:
        return judgement
    return judgement.instead(Verdict.INTENDED, f"{intention.reason} at {intention.where}; the other elements agree")


def _within(path: str, reason: str, distance: float, witness: OwnLoss, judgement: Judgement) -> Judgement:
    """Whether the gradient is as near to the derivative as was said."""
    off, bound, size = witness.known.distance(path)
    unsure = 0.0 if witness.problem.primals[path].size <= SAMPLED else UNSURE
    figures = f"{off / size:.2g} of its norm from the derivative" if size else f"0 where the derivative is {off:.2g}"
    if math.isfinite(bound) and not (1 - unsure) * off <= distance * size + bound:
        return judgement.instead(Verdict.DISAGREE, f"{reason}, but {figures}, where {distance:g} is allowed")
    if not math.isfinite(bound) or bound > distance * size or (1 + unsure) * off > distance * size + bound:
        message = f"{reason}: differences cannot tell whether it is within {distance:g} of its norm (+- {bound:.1g})"
        return judgement.instead(Verdict.INCONCLUSIVE, message)
    return judgement.instead(Verdict.INTENDED, f"{reason}: {figures}, of {distance:g} allowed")


def _given(witness: OwnLoss, path: str) -> Array | None:
    """The gradient; zeros for None; None for one that is no finite gradient."""
    if witness.given(path) is None:
        return np.zeros(witness.problem.primals[path].shape)
    return witness.finest(path)
