"""Candidates that bring losses of their own: each judged by numerical derivatives of its loss, and by the others.

No vote is counted. Losses are held against those of the first candidate whose losses are finite and the
same from call to call. Gradients are held against the first that its own differences confirm; where
two differ, both are differenced again at the places where they differ most, so that the one at fault is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.black_box import OwnEvidence, own_evidence
from gradwitness.evidence.neighbours import draw_neighbours
from gradwitness.evidence.noise_floor import joint
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.report import Row
from gradwitness.verdict import (
    Judgement,
    LossJudgement,
    Verdict,
    compare,
    judge_loss,
    stands_against,
)
from gradwitness.verify.custom import custom_rules
from gradwitness.verify.failing import first_lines
from gradwitness.verify.intended import as_intended
from gradwitness.verify.purity import impure
from gradwitness.verify.settings import Settings
from gradwitness.verify.trial import attempt, judged_row, prepare, textbook, trial
from gradwitness.verify.witness import Witness, comparable, joint_floor, reach_of

__all__ = ["black_boxes"]

Array = np.ndarray[Any, Any]
Primals = Mapping[str, Array]
Progress = Callable[[str], None]
PLACES = 3  # at which two gradients that differ are differenced again
ITSELF = "itself in float64"


def black_boxes(
    blanks: Mapping[str, Row],
    candidates: Mapping[str, Candidate],
    problem: Problem,
    settings: Settings,
    *,
    progress: Progress,
) -> list[Row]:
    """A row for each gradient of each candidate, in the dtype and on the device that its blank row names."""
    rows: dict[str, list[Row]] = {}
    witnesses: list[Witness] = []
    neighbours: tuple[Primals, ...] | None = None
    for label, candidate in candidates.items():
        blank = blanks[label]
        progress(f"{problem.name} {blank.dtype}: {label}, and differences of its loss")
        found = attempt(blank, partial(_witness, blank, candidate, problem, neighbours, settings))
        if isinstance(found, Row):
            rows[label] = [found]
            continue
        witness, neighbours = found
        witnesses.append(witness)
    rows |= _judged(witnesses, problem, settings)
    return [row for label in candidates for row in rows[label]]


def _witness(
    blank: Row, candidate: Candidate, problem: Problem, neighbours: tuple[Primals, ...] | None, settings: Settings
) -> tuple[Witness, tuple[Primals, ...]]:
    """The candidate run and its evidence gathered; the neighbours are drawn by the first that gets so far."""
    with registry.installed(candidate.backend).precision(settings.precision):
        problem = problem.rounded(blank.dtype)
        prepared = prepare(candidate, problem, blank.dtype, blank.device, settings)
        if neighbours is None:
            is_usable = partial(_is_finite_at, prepared)
            neighbours = draw_neighbours(problem.primals, is_usable, blank.dtype, seed=(settings.seed, 4))
        tried = trial(prepared, problem.primals, neighbours, blank.dtype)
        if not any(tried.unsteady.values()):
            capabilities = registry.backend(candidate.backend).capabilities
            resizes = not capabilities.compiles_along(candidate.path)  # anew for each size
            elsewhere = next(iter(neighbours), None)
            found = impure(prepared, problem, tried, elsewhere, blank.dtype, resizes=resizes)
            tried = replace(tried, unsteady=found)
        blank, others = custom_rules(blank, candidate, prepared, problem.primals)
        evidence, note = _evidence(blank, candidate, problem, prepared, neighbours, settings)
    notes = [note] if note else []
    known = dict(evidence.differences)
    return Witness(blank.candidate, blank, problem, tried, evidence, known, notes, others), neighbours


def _is_finite_at(prepared: Prepared, primals: Primals) -> bool:
    """Whether the loss is defined there; one that checks its domain may raise."""
    try:
        return math.isfinite(prepared.value(primals))
    except NoAnswerError:
        raise
    except Exception:  # noqa: BLE001  # a domain error may be any
        return False


def _evidence(
    blank: Row,
    candidate: Candidate,
    problem: Problem,
    prepared: Prepared,
    neighbours: Sequence[Primals],
    settings: Settings,
) -> tuple[OwnEvidence, str]:
    """Taken in float64; where the candidate does not run there, in its own dtype, with a note that says why."""
    dtype = blank.dtype
    arithmetic = registry.backend(candidate.backend).capabilities.arithmetic(dtype)
    gathered = partial(own_evidence, arithmetic=arithmetic, seed=settings.seed)
    if dtype == "float64":
        return gathered(prepared, prepared, problem, dtype, neighbours), ""
    try:
        wide = prepare(candidate, problem, "float64", blank.device, settings)
        return gathered(prepared, wide, problem, dtype, neighbours), ""
    except Exception as error:  # noqa: BLE001  # a kernel of one dtype may raise anything in another
        note = f"differenced in {dtype}, as the loss does not run in float64 ({first_lines(error)})"
        return gathered(prepared, None, problem, dtype, neighbours), note


def _judged(witnesses: Sequence[Witness], problem: Problem, settings: Settings) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {witness.label: [] for witness in witnesses}
    first = next((w for w in witnesses if w.is_steady and all(map(math.isfinite, w.tried.losses))), None)
    for witness in witnesses:
        witness.loss = _compared(witness, first or witness)
    for path in problem.differentiated:
        _look_closer(path, witnesses, settings)
        for witness in witnesses:
            _noting(witness, partial(witness.pin_down, path, settings))
        for label, row in _rows_of(path, witnesses, problem.intentions.get(path)).items():
            rows[label].append(row)
    for witness in witnesses:
        rows[witness.label] += witness.others
    return rows


def _compared(witness: Witness, first: Witness) -> LossJudgement:
    """A loss against another."""
    if witness is first:
        loss = witness.tried.losses[0]
        return LossJudgement() if math.isfinite(loss) else LossJudgement.undefined(loss)
    pairs = zip(first.evidence.floors.losses, witness.evidence.floors.losses, strict=True)
    spreads = [joint(a, b) if math.isfinite(b.norm) else a for a, b in pairs]  # a loss of NaN excuses nothing
    first_ones, whose = first.tried.losses, repr(first.label)
    return judge_loss(witness.tried.losses, first_ones, spreads, reach=reach_of(first, witness), whose=whose)


def _look_closer(path: str, witnesses: Sequence[Witness], settings: Settings) -> None:
    """Where two differ, both are differenced; a loss that fails there keeps the differences that it has."""
    for one, other in combinations(comparable(witnesses, path), 2):
        places = _places(one, other, path)
        for witness in (one, other) if places else ():
            _noting(witness, partial(witness.look_closer, path, places, settings))


def _noting(witness: Witness, work: Callable[[], None]) -> None:
    """Further differences; a loss that fails there is noted."""
    found = attempt(witness.blank, work)
    if isinstance(found, Row):
        witness.notes.append(f"differences at further places failed ({found.message})")


def _places(one: Witness, other: Witness, path: str) -> list[int]:
    """Flat indices at which two gradients differ most, in floors and at all; none where rounding explains it."""
    a, b, (floor, reach) = one.finest(path), other.finest(path), joint_floor(one, other, path)
    assert a is not None
    assert b is not None
    if compare(a, b, floor, reach).ratio <= 1:
        return []
    error = np.abs(a - b).reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(error == 0, 0.0, error / floor.elements.reshape(-1))
    worst = [int(np.argmax(error)), *(int(i) for i in np.argsort(-ratios)[:PLACES])]
    return [i for i in dict.fromkeys(worst) if error[i] > 0][:PLACES]


def _rows_of(path: str, witnesses: Sequence[Witness], intended: str | None) -> dict[str, Row]:
    """The row of each candidate for one gradient; intended: why it is meant to differ from the derivative, if it is."""
    judgements = {w.label: w.judgement(path) for w in witnesses}
    peers = comparable(witnesses, path)
    confirmed = [w for w in peers if judgements[w.label].verdict is Verdict.AGREE]
    standing = [w for w in peers if judgements[w.label].verdict is Verdict.INCONCLUSIVE]
    reference = next(iter([*confirmed, *standing]), None)
    for w in peers:
        if reference is not None and w is not reference:
            _held_against(w, reference, path, judgements)
    if intended is not None:
        judgements = as_intended(path, intended, witnesses, judgements)
    return {w.label: _row(w, reference if w in peers else None, path, judgements[w.label]) for w in witnesses}


def _held_against(witness: Witness, reference: Witness, path: str, judgements: dict[str, Judgement]) -> None:
    """Doubt whoever cannot refute the other by its own differences, where the two differ beyond what rounding does."""
    mine, other = witness.finest(path), reference.finest(path)
    assert mine is not None
    assert other is not None
    found = compare(mine, other, *joint_floor(witness, reference, path))
    if witness.evidence.fine is None:
        judgements[witness.label] = replace(judgements[witness.label], error=found.error, ratio=found.ratio)
    if found.ratio <= 1:
        return
    for doubted, gradient, by in ((witness, other, reference), (reference, mine, witness)):
        judgement = judgements[doubted.label]
        if judgement.verdict is Verdict.AGREE and not stands_against(doubted.evidence_on(path), gradient):
            message = f"differs from {by.label!r} beyond rounding, and differences cannot tell which is right"
            judgements[doubted.label] = judgement.instead(Verdict.INCONCLUSIVE, message)


def _row(witness: Witness, reference: Witness | None, path: str, judgement: Judgement) -> Row:
    if witness.tried.unsteady.get(path):
        judgement = judgement.instead(Verdict.NONDETERMINISTIC, witness.tried.unsteady[path])
    elif witness.loss.verdict:
        judgement = judgement.instead(witness.loss.verdict, witness.loss.message)
    compared = reference is not None and reference is not witness and witness.evidence.fine is None
    against = ITSELF if witness.evidence.fine is not None else reference.label if compared and reference else None
    known = (reference or witness).finest(path)
    row = judged_row(
        witness.blank,
        path,
        np.zeros(witness.problem.primals[path].shape) if known is None else known,
        judgement,
        textbook=textbook(witness.tried.gradients, witness.problem, witness.evidence.differences),
        setup_seconds=witness.tried.prepared.setup_seconds,
        against=None if judgement.error is None else against,
        fd_dtype=witness.evidence.dtype,
    )
    if not witness.notes:
        return row
    note = "; ".join(dict.fromkeys(witness.notes))
    return replace(row, message=f"{row.message} ({note})" if row.message else note)
