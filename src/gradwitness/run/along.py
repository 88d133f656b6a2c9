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
from gradwitness.settings import Settings
from gradwitness.tangents import tangent

__all__ = ["along_direction"]

SEED = 9  # beside that of the run
UNPROVEN = (
    "{label}: products with the Hessian are judged by the graph of the loss, and that it is the loss was not shown "
    "({why}); see to its gradient first"
)


def along_direction(case: Case, *, progress: Progress) -> Case:
    """The case whose gradients are products of the Hessian with a random direction.

    Raises GradwitnessError for a gradient by hand, which has no further derivative, and for a loss in a framework's own
    arrays that cannot be read into a graph, or whose graph does not prove to be it.
    """
    problem, settings = case.problem, case.settings
    for label, candidate in case.candidates.items():
        if candidate.is_written_by_hand:
            raise GradwitnessError(f"{label}: a gradient by hand has no further derivative: leave it out")
    graph = _graph(case, progress)
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
    return replace(case, problem=moved, candidates=candidates, settings=replace(settings, derivative="gradient"))


def _ways(label: str, candidate: Candidate, graph: Graph, problem: Problem) -> dict[str, Candidate]:
    """The candidate along each of its backend's ways; where it has none, and runs what all run, by the graph."""
    ways = registry.backend(candidate.backend).capabilities.ways_along
    loss: Any = graph if candidate.loss is None else candidate.loss
    if not ways:
        return {label: replace(candidate, loss=None)}
    return {f"{label} [{way}]": replace(candidate, loss=Along(loss, problem, way)) for way in ways}


def _graph(case: Case, progress: Progress) -> Graph:
    """That of the loss of all, or of the candidates' own, once that has proved to be theirs."""
    problem, settings = case.problem, case.settings
    if problem.loss is not None:
        return problem.graph
    _, graph = any_captured(case.candidates, problem, prepare=partial(prepare, settings=settings))
    first: Settings = replace(settings, derivative="gradient", dtypes=("float64",))
    rows = verify_problem(problem, case.candidates, first, progress=progress)
    for row in rows:
        if row.captured is None and row.reference is not None and isinstance(_loss_of(case, row.candidate), Graph):
            continue  # who runs the graph of another
        if row.captured is None:
            why = row.not_captured or row.message or str(row.verdict)
            raise GradwitnessError(UNPROVEN.format(label=row.candidate, why=why))
    return graph


def _loss_of(case: Case, label: str) -> Any:
    return case.candidates[label].loss
