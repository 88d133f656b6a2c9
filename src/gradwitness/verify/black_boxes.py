"""Candidates that bring losses of their own: each judged by numerical derivatives of its loss, and by the others.

No vote is counted. Losses are held against the first candidate's. Gradients are held against the
first one that the numerical derivatives of its own loss do not refute; where two differ, both are
differenced again at the places where they differ most, so that the one at fault is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.evidence.black_box import OwnEvidence, own_evidence
from gradwitness.evidence.finite_difference import Differences
from gradwitness.evidence.neighbours import draw_neighbours
from gradwitness.evidence.noise_floor import JITTER, TensorFloor
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.report import Row
from gradwitness.verdict import Judgement, LossJudgement, TensorEvidence, Verdict, judge, judge_loss, reach, refutes
from gradwitness.verify.settings import Settings
from gradwitness.verify.trial import Trial, attempt, doubtful, error_row, first_lines, judged_row, prepare, textbook, trial

__all__ = ["black_boxes"]

Array = np.ndarray[Any, Any]
Primals = Mapping[str, Array]
Progress = Callable[[str], None]
PLACES = 3  # at which two gradients that differ are differenced again


@dataclass
class _Witness:
    """One candidate that ran. note: why its differences were not taken in float64; differences grow as doubts arise."""

    label: str
    blank: Row
    tried: Trial
    evidence: OwnEvidence
    differences: dict[str, Differences]
    note: str
    loss: LossJudgement = LossJudgement()

    def gradient(self, path: str) -> Array | None:
        """The gradient in float64; None where it is missing, misshapen or not finite."""
        found, shape = self.tried.gradients.get(path), self.evidence.floors[path].elements.shape
        if found is None or found.shape != shape or not np.all(np.isfinite(found)):
            return None
        return found.astype(np.float64)

    def is_refuted(self, path: str) -> bool:
        gradient = self.gradient(path)
        return gradient is None or refutes(self.differences[path], gradient, self.evidence.floors[path])

    def look_closer(self, path: str, indices: Sequence[int], settings: Settings) -> None:
        """Take differences by further coordinates."""
        known = {probe.index for probe in self.differences[path].probes}
        new = [i for i in indices if i not in known]
        with registry.backend(self.blank.backend).precision(settings.precision):
            probes = self.evidence.differencing.by_coordinates(path, new)
        self.differences[path] = self.differences[path].with_probes(probes)


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
    witnesses: list[_Witness] = []
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
) -> tuple[_Witness, tuple[Primals, ...]]:
    """The candidate run and its evidence gathered; the neighbours are drawn by the first that gets so far."""
    with registry.backend(candidate.backend).precision(settings.precision):
        problem = problem.rounded(blank.dtype)
        prepared = prepare(candidate, problem, blank.dtype, blank.device)
        if neighbours is None:
            neighbours = draw_neighbours(
                problem.primals, lambda p: bool(np.isfinite(prepared.value(p))), blank.dtype, seed=(settings.seed, 4)
            )
        tried = trial(prepared, problem.primals, neighbours, blank.device)
        evidence, note = _evidence(blank, candidate, problem, prepared, neighbours, settings.seed)
    return _Witness(blank.candidate, blank, tried, evidence, dict(evidence.differences), note), neighbours


def _evidence(
    blank: Row, candidate: Candidate, problem: Problem, prepared: Prepared, neighbours: Sequence[Primals], seed: int
) -> tuple[OwnEvidence, str]:
    """Taken in float64; where the candidate does not run there, in its own dtype, with a note that says why."""
    dtype = blank.dtype
    if dtype == "float64":
        return own_evidence(prepared, prepared, problem, dtype, neighbours, seed=seed), ""
    try:
        wide = prepare(candidate, problem, "float64", blank.device)
        return own_evidence(prepared, wide, problem, dtype, neighbours, seed=seed), ""
    except Exception as error:  # noqa: BLE001  # a kernel of one dtype may raise anything in another
        note = f"differenced in {dtype}, as the loss does not run in float64 ({first_lines(error)})"
        return own_evidence(prepared, None, problem, dtype, neighbours, seed=seed), note


def _judged(witnesses: Sequence[_Witness], problem: Problem, settings: Settings) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {witness.label: [] for witness in witnesses}
    for witness in witnesses:
        witness.loss = _compared(witness, witnesses[0])
    for path in problem.differentiated:
        found = _rows_of(path, witnesses, problem, settings)
        for label, row in found.items():
            rows[label].append(row)
    return rows


def _compared(witness: _Witness, first: _Witness) -> LossJudgement:
    """A loss against the first candidate's."""
    if witness is first:
        return LossJudgement()
    pairs = zip(first.evidence.losses, witness.evidence.losses, strict=True)
    floors = [math.hypot(a, b) if math.isfinite(b) else a for a, b in pairs]  # a loss of NaN excuses nothing
    return judge_loss(witness.tried.losses, first.tried.losses, floors, perturbed=JITTER, whose=repr(first.label))


def _rows_of(path: str, witnesses: Sequence[_Witness], problem: Problem, settings: Settings) -> dict[str, Row]:
    """The row of each candidate for one gradient."""
    comparable = [w for w in witnesses if not w.loss.verdict and w.gradient(path) is not None]
    for one, other in combinations(comparable, 2):
        places = _places(one, other, path)
        for witness in (one, other) if places else ():
            witness.look_closer(path, places, settings)
    reference = next((w for w in comparable if not w.is_refuted(path)), None)
    judgements = {w.label: _judgement(w, reference, path) for w in witnesses}
    is_doubted = any(
        judgement.doubted and not _stands_by_itself(reference, w, path)
        for w, judgement in zip(witnesses, judgements.values(), strict=True)
    )
    rows = {}
    for w in witnesses:
        held_against = reference if reference in comparable and w in comparable else None
        row = _row(w, held_against, path, judgements[w.label], problem)
        rows[w.label] = doubtful(row) if is_doubted and w in comparable else row
    return rows


def _places(one: _Witness, other: _Witness, path: str) -> list[int]:
    """Flat indices at which two gradients differ most, in floors and at all; none where rounding explains it."""
    a, b, floor = one.gradient(path), other.gradient(path), _joint_floor(one, other, path)
    assert a is not None
    assert b is not None
    error, limits = np.abs(a - b).reshape(-1), reach(floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(error == 0, 0.0, error / floor.elements.reshape(-1))
    if float(np.linalg.norm(error)) <= limits.norm * floor.norm and float(ratios.max()) <= limits.element:
        return []
    worst = [int(np.argmax(error)), *(int(i) for i in np.argsort(-ratios)[:PLACES])]
    return [i for i in dict.fromkeys(worst) if error[i] > 0][:PLACES]


def _joint_floor(one: _Witness, other: _Witness, path: str) -> TensorFloor:
    """What rounding explains of the distance between two gradients, each of which has its own."""
    a, b = one.evidence.floors[path], other.evidence.floors[path]
    return replace(a, norm=math.hypot(a.norm, b.norm), elements=np.hypot(a.elements, b.elements))


def _judgement(witness: _Witness, reference: _Witness | None, path: str) -> Judgement:
    alone = reference is None or witness is reference
    held_against = witness if reference is None else reference
    floor = witness.evidence.floors[path] if alone else _joint_floor(witness, held_against, path)
    gradient = held_against.gradient(path)
    known = np.zeros(floor.elements.shape) if gradient is None else gradient
    differences = witness.differences[path]
    reached = any(abs(probe.value) > probe.bound for probe in differences.probes)
    evidence = TensorEvidence(witness.blank.dtype, known, True, floor, differences, reached, peer=True)
    judgement = judge(witness.tried.gradients.get(path), evidence, is_referee=alone)
    if witness.tried.unsteady.get(path):
        return replace(
            judgement, verdict=Verdict.NONDETERMINISTIC, message=witness.tried.unsteady[path], doubted=False
        )
    if witness.loss.verdict:
        return replace(judgement, verdict=witness.loss.verdict, message=witness.loss.message, doubted=False)
    return judgement


def _stands_by_itself(reference: _Witness | None, other: _Witness, path: str) -> bool:
    """Whether the reference's own differences are fine enough to refute what the other says."""
    gradient = other.gradient(path)
    if reference is None or gradient is None:
        return True
    return refutes(reference.differences[path], gradient, reference.evidence.floors[path])


def _row(
    witness: _Witness, reference: _Witness | None, path: str, judgement: Judgement, problem: Problem
) -> Row:
    own = (reference or witness).gradient(path)
    row = judged_row(
        witness.blank,
        path,
        np.zeros(problem.primals[path].shape) if own is None else own,
        judgement,
        textbook=textbook(witness.tried.gradients, problem, witness.evidence.differences),
        setup_seconds=witness.tried.prepared.setup_seconds,
        against=None if judgement.error is None or reference is None else reference.label,
        fd_dtype=witness.evidence.dtype,
    )
    if not witness.note:
        return row
    return replace(row, message=f"{row.message} ({witness.note})" if row.message else witness.note)
