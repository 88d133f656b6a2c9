"""Gradients that are meant to differ from the derivative: a straight-through estimator, say.

No derivative can confirm them. The candidates are held against the first of them instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwitness.verdict import Judgement, Verdict, compare
from gradwitness.verify.witness import Witness, joint_floor

__all__ = ["as_intended"]

Array = np.ndarray[Any, Any]
MEANT = frozenset({Verdict.DISAGREE, Verdict.INCONCLUSIVE, Verdict.MISSING})  # what a declaration may excuse


def as_intended(
    path: str, reason: str, witnesses: Sequence[Witness], judgements: Mapping[str, Judgement]
) -> dict[str, Judgement]:
    """The judgements of one gradient that was declared: what differs from the derivative is intended where it is the
    same in all candidates, None counting as zeros."""
    able = [w for w in witnesses if w.is_steady and not w.loss.verdict and _given(w, path) is not None]
    found = dict(judgements)
    for witness in able:
        judgement = judgements[witness.label]
        if judgement.verdict in MEANT:
            found[witness.label] = _judged(witness, able[0], path, reason, judgement)
        elif judgement.verdict is Verdict.AGREE:
            found[witness.label] = replace(judgement, message=f"declared as {reason}, yet it is the derivative")
    return found


def _judged(witness: Witness, first: Witness, path: str, reason: str, judgement: Judgement) -> Judgement:
    mine, other = _given(witness, path), _given(first, path)
    assert mine is not None
    assert other is not None
    if witness is not first and compare(mine, other, *joint_floor(witness, first, path)).ratio > 1:
        message = f"differs from that of {first.label!r}, and not from the derivative alone as {reason} does"
        return judgement.instead(Verdict.DISAGREE, message)
    return judgement.instead(Verdict.INTENDED, reason)


def _given(witness: Witness, path: str) -> Array | None:
    """The gradient; zeros for None; None for one that is no finite gradient."""
    if witness.tried.gradients.get(path) is None:
        return np.zeros(witness.problem.primals[path].shape)
    return witness.finest(path)
