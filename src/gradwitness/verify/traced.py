"""Candidates of a traced loss: held against the reference, the hand-derived gradient in 256 bits or in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.arithmetic import REDUCTIONS, Arithmetic, Reduction
from gradwitness.evidence.noise_floor import contractions, multiplies_results
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.reference import Exact
from gradwitness.evidence.testimony import Floors, Testimony, testimony
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Row
from gradwitness.verdict import (
    Judgement,
    Moved,
    Standing,
    TensorEvidence,
    Verdict,
    confirms,
    judge,
    judge_loss,
    recognised,
)
from gradwitness.verdict.at_kink import AtKink
from gradwitness.verify.custom import custom_rules
from gradwitness.verify.settings import Settings
from gradwitness.verify.trial import Trial, attempt, judged_row, prepare, textbook, trial

__all__ = ["evidence_on", "gather", "traced"]

Array = np.ndarray[Any, Any]
ADVICE = {  # against reduced precision, by the precision of the run
    "default": "--precision highest avoids it",
    "highest": "the backend's own precision is held at highest, so look in the candidate's code",
}


def gather(problem: Problem, dtype: str, settings: Settings) -> Testimony:
    """All that is known of the problem's gradient where `dtype` can hold the point."""
    interpreter = registry.interpreter()
    arithmetic = interpreter.capabilities.arithmetic("float64")
    seconds = settings.reference_seconds if settings.reference == "extended" else 0.0
    return testimony(interpreter, problem, dtype, arithmetic=arithmetic, seed=settings.seed, seconds=seconds)


def traced(
    blanks: Mapping[str, Row],
    candidates: Mapping[str, Candidate],
    known: Testimony,
    settings: Settings,
    *,
    progress: Callable[[str], None],
) -> list[Row]:
    """A row for each gradient of each candidate, on the device that its blank row names."""
    rows: list[Row] = []
    doubted: dict[str, set[str]] = {}  # by parameter, the candidates that cast doubt on the referee
    for label, candidate in candidates.items():
        progress(f"{known.problem.name} {known.dtype}: {label}")
        found = attempt(blanks[label], partial(_judged, blanks[label], candidate, known, settings))
        if isinstance(found, Row):
            rows.append(found)
        else:
            rows += found[0]
            for parameter in found[1]:
                doubted.setdefault(parameter, set()).add(label)
    return [_doubtful(row) if _is_doubtful(row, doubted) else row for row in rows]


def _judged(blank: Row, candidate: Candidate, known: Testimony, settings: Settings) -> tuple[list[Row], set[str]]:
    """The rows of one candidate, and the parameters at which it casts doubt on the referee."""
    backend = registry.installed(candidate.backend)
    with backend.precision(settings.precision):
        prepared = prepare(candidate, known.problem, known.dtype, blank.device, settings)
        tried = trial(prepared, known.problem.primals, known.neighbours, known.dtype)
        blank, others = custom_rules(blank, candidate, prepared, known.problem.primals)
    lowered = candidate.loss is None and not candidate.is_written_by_hand
    is_referee = not known.extended and backend.capabilities.interpreter and known.dtype == "float64" and lowered
    arithmetic = backend.capabilities.arithmetic(known.dtype)
    floors = known.floors_of(arithmetic)
    about_all = {
        "textbook": textbook(tried.gradients, known.problem, known.differences),
        "referee": is_referee,
        "setup_seconds": prepared.setup_seconds,
    }
    judgements = _judgements(tried, known, floors, arithmetic, is_referee)
    if not any(tried.unsteady.values()):
        under = partial(_moved, tried, known, floors, arithmetic)
        judgements = recognised(judgements, under, _reductions(known), advice=ADVICE[settings.precision])
    rows = [
        judged_row(blank, path, known.gradients[path].high, j, refused=known.refused.get(path), **about_all)
        for path, j in judgements.items()
    ]
    return rows + others, {path for path, judgement in judgements.items() if judgement.doubted}


def _judgements(
    tried: Trial, known: Testimony, floors: Floors, arithmetic: Arithmetic, is_referee: bool
) -> dict[str, Judgement]:
    different = judge_loss(tried.losses, known.losses, floors.losses)
    found = {}
    for path in known.gradients:
        judgement = judge(
            tried.gradients.get(path), evidence_on(path, known, floors, arithmetic), is_referee=is_referee
        )
        if tried.unsteady.get(path):
            judgement = judgement.instead(Verdict.NONDETERMINISTIC, tried.unsteady[path])
        elif different.verdict:
            judgement = judgement.instead(different.verdict, different.message)
        found[path] = judgement
    return found


def _reductions(known: Testimony) -> Iterator[Reduction]:
    """Those of this dtype that could make a difference to this graph."""
    graph = known.problem.graph
    ops, results = contractions(graph), multiplies_results(graph)
    return (
        r for r in REDUCTIONS if known.dtype in r.dtypes and (r.operands is None or r.operands.matter(ops, results))
    )


def _moved(
    tried: Trial, known: Testimony, floors: Floors, arithmetic: Arithmetic, reduction: Reduction
) -> tuple[list[Moved], dict[str, Moved]]:
    """How far losses and gradients are from the reference, and how far this reduction would have moved them."""
    predicted = known.predictions_of(reduction.of(arithmetic))
    losses = [
        Moved(np.array(true), np.array(loss - true), floor, prediction)
        for loss, true, floor, prediction in zip(
            tried.losses, known.losses, floors.losses, predicted.losses, strict=True
        )
        if np.isfinite(true) and np.isfinite(floor.norm)
    ]
    gradients = {
        path: Moved(true.high, _error(tried.gradients.get(path), true), floors.tensors[path], predicted.tensors[path])
        for path, true in known.gradients.items()
    }
    return losses, gradients


def _error(gradient: Array | None, true: Exact) -> Array:
    """None counts as zeros; nothing explains another shape."""
    given = np.zeros(true.high.shape) if gradient is None else gradient.astype(np.float64)
    return true.error_of(given) if given.shape == true.high.shape else np.full(true.high.shape, np.inf)


def evidence_on(path: str, known: Testimony, floors: Floors, arithmetic: Arithmetic) -> TensorEvidence:
    """What is known about one leaf's gradient, for a candidate that rounds like this."""
    primals = known.problem.primals
    scale = max(norm(g.high) * typical(primals[leaf]) for leaf, g in known.gradients.items())
    return TensorEvidence(
        known.dtype,
        known.gradients[path],
        _standing(path, known),
        floors.tensors[path],
        known.differences[path],
        path in known.reached,
        typical(primals[path]),
        scale,
        _kink(path, known, arithmetic),
        lambda index: known.differencing.by_coordinates(path, [index]),
    )


def _kink(path: str, known: Testimony, arithmetic: Arithmetic) -> AtKink | None:
    """The units at kinks; those within rounding of one only where they are few enough to be tried one by one."""
    slopes = known.slopes
    if not slopes.can_fit(known.gradients[path].high.size):
        slopes = slopes.only_exact
    if not slopes.kinked:
        return None
    return AtKink(slopes, path, known.gradients[path], arithmetic, known.differencing)


def _standing(path: str, known: Testimony) -> Standing:
    if path in known.kinked:
        return Standing.REFUTED if known.kinked[path] else Standing.KINKED
    if path in known.refuted:
        return Standing.REFUTED
    if known.extended:
        return Standing.VALIDATED
    floor = lambda: known.floors_of(known.arithmetic).tensors[path]  # noqa: E731  # seldom needed, and costs runs
    stands = confirms(known.gradients[path].high, known.dtype, floor, known.differences[path])
    return Standing.CONFIRMED if stands else Standing.REFUTED


def _is_doubtful(row: Row, doubted: Mapping[str, set[str]]) -> bool:
    """Whether it agrees with a referee that another candidate casts doubt on."""
    by = doubted.get(row.parameter or "", set())
    return row.verdict is Verdict.AGREE and bool(by) and row.candidate not in by


def _doubtful(row: Row) -> Row:
    """Where finite differences cannot say which of two is wrong, whoever agrees with the referee is doubtful too."""
    message = "another candidate differs beyond the noise floor, and finite differences cannot tell which is right"
    return replace(row, verdict=Verdict.INCONCLUSIVE, message=message)
