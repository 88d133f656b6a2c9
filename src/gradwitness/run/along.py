"""Another derivative than the gradient: the same case, whose loss is the derivative along a direction.

The gradient of that is the product of the Hessian with the direction. Its truth is that of the graph of the derivative
(`tangents`). Backends that take derivatives along directions themselves take this one in each of their ways; others run
the graph.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.capturing import any_captured
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph, direction
from gradwitness.problem import Along, Candidate, Problem
from gradwitness.report import Case
from gradwitness.run.preparing import prepare
from gradwitness.run.problems import verify_problem
from gradwitness.run.progress import Progress
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness.tangents import tangent
from gradwitness.verdict import Verdict

__all__ = ["along_direction"]

DECIDED = (
    "products with the Hessian of a loss that decides something at the point cannot be judged yet: {text} ({line})"
)
SEED = 9  # beside that of the run
UNPROVEN = (
    "{label}: products with the Hessian are judged by the graph of the loss, and that it is the loss was not shown "
    "({why}); see to its gradient first"
)


def along_direction(case: Case, *, progress: Progress) -> Case:
    """The case whose gradients are products of the Hessian with a random direction.

    Raises GradwitnessError for a gradient by hand, which has no further derivative, and for a point at a kink; for a
    loss in a framework's own arrays that cannot be read into a graph, that decides something at the point, or whose
    graph does not prove to be it.
    """
    problem, settings = case.problem, case.settings
    for label, candidate in case.candidates.items():
        if candidate.is_written_by_hand:
            raise GradwitnessError(f"{label}: a gradient by hand has no further derivative: leave it out")
    graph = _graph(case, progress)
    _expect_smooth(graph, problem, settings)
    leaves = {path: problem.leaves[path] for path in graph.leaves if path in problem.leaves}
    wrt = tuple(path for path in problem.differentiated if path in graph.leaves)
    rng = np.random.default_rng([settings.seed, SEED])
    along: dict[str, Array] = {direction(path): np.asarray(rng.standard_normal(leaves[path].shape)) for path in wrt}
    params = {path: leaves[path] for path in wrt}
    batch = {path: x for path, x in leaves.items() if path not in params} | along
    candidates: dict[str, Candidate] = {}
    for label, candidate in case.candidates.items():
        candidates |= _ways(label, candidate, graph, replace(problem, wrt=wrt))
    moved = Problem(problem.name, tangent(graph, wrt), params, batch)
    settings = replace(settings, derivative="gradient", paths=())  # the ways along stand for paths
    return replace(case, problem=moved, candidates=candidates, settings=settings)


def _ways(label: str, candidate: Candidate, graph: Graph, problem: Problem) -> dict[str, Candidate]:
    """The candidate along each of its backend's ways; where it has none, and runs what all run, by the graph."""
    ways = registry.backend(candidate.backend).capabilities.ways_along
    loss: Any = graph if candidate.loss is None else candidate.loss
    if not ways:
        return {label: replace(candidate, loss=None)}
    return {f"{label} [{way}]": replace(candidate, loss=Along(loss, problem, way)) for way in ways}


def _graph(case: Case, progress: Progress) -> Graph:
    """That of the loss of all, or of the candidates' own, once that has proved to be theirs. What is detached stays
    so."""
    problem, settings = case.problem, case.settings
    if problem.loss is not None:
        return problem.graph
    _, graph = any_captured(case.candidates, problem, prepare=partial(prepare, settings=settings), stops=True)
    if decided := [remark for remark in graph.remarks if remark.kind != "detached"]:
        raise GradwitnessError(DECIDED.format(text=decided[0].text, line=decided[0].line))
    first: Settings = replace(settings, derivative="gradient", dtypes=("float64",), paths=())
    for row in verify_problem(problem, case.candidates, first, progress=progress):
        is_shown = row.captured is not None or row.verdict is Verdict.INTENDED
        if not is_shown and not isinstance(case.candidates[row.candidate].loss, Graph):
            why = row.not_captured or row.message or str(row.verdict)
            raise GradwitnessError(UNPROVEN.format(label=row.candidate, why=why))
    return graph


def _expect_smooth(graph: Graph, problem: Problem, settings: Settings) -> None:
    """Raise GradwitnessError where a unit stands at its kink at this very point: it has no second derivative there."""
    known = graph_referee(replace(problem, loss=graph, intended={}), "float64", settings)
    if known.kinked:
        raise GradwitnessError(
            f"{problem.name}: at this very point the gradient of {', '.join(known.kinked)} depends on the slope that "
            "is chosen at a kink, so there is no second derivative: take another point"
        )
