"""Another derivative than the gradient: the same case, with a loss whose gradient is that derivative.

So its truth is that of a graph (`derivatives`), and all that is known of gradients is known of it. Backends that take
the derivative themselves do so in each of their ways; others run the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.capturing import any_captured
from gradwitness.derivatives import by_example, of_example, stepped, tangent
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError, UnsupportedError
from gradwitness.graph import Graph, direction, step
from gradwitness.lowering import reduction_over_examples
from gradwitness.problem import Candidate, Derived, Problem
from gradwitness.recording import IS_DETACHED
from gradwitness.report import Case
from gradwitness.run.preparing import prepare
from gradwitness.run.problems import verify_problem
from gradwitness.run.progress import Progress
from gradwitness.run.referee import graph_referee
from gradwitness.run.rules import WRONG
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict

__all__ = ["derived"]

SEED = 9  # beside that of the run
DIRECTIONS = 3  # of each leaf, for the jvp
EXAMPLES = 8  # of the batch, whose gradients are judged one by one
FLOAT32 = 2.0**-24  # the unit roundoff in which a loss may compute inside, whatever it is given
PARAMETERS = 3_000  # of which a Hessian is not too large
DECIDED = (
    "{derivative} of a loss that decides something at the point cannot be judged yet: {text} ({line}); judge its "
    "gradient"
)
DETACHED = (
    "{label}: {derivative} takes as constant what the loss detaches, and its gradient is wrong there ({why}); mend the "
    "loss, or declare it"
)
OF_A_BATCH = "{name}: a Graph holds for its whole batch; for gradients by example give the loss itself"
UNPROVEN = (
    "{label}: {derivative} is judged by the graph of the loss, and that it is the loss was not shown ({why}); see to "
    "its gradient first"
)


@dataclass(frozen=True)
class _Asked:
    """What is asked for: a case, at the examples that count."""

    case: Case
    progress: Progress

    @property
    def problem(self) -> Problem:
        return self.case.problem

    @property
    def derivative(self) -> str:
        return self.case.settings.derivative

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.case.settings.seed, SEED])

    @property
    def own(self) -> dict[str, Candidate]:
        """The candidates that bring a loss; others run the graph of it."""
        return {label: candidate for label, candidate in self.case.candidates.items() if candidate.loss is not None}

    def of_examples(self, problem: Problem) -> _Asked:
        """The same with other examples."""
        return replace(self, case=replace(self.case, problem=problem))


@dataclass(frozen=True)
class _Moved:
    """The problem whose gradient is the derivative; the problem that it is asked at; the graph of the loss, for whoever
    brings none, if one graph serves."""

    problem: Problem
    at: Problem
    plain: Graph | None


def derived(case: Case, *, progress: Progress) -> Case:
    """The case whose gradients are the derivatives that `case.settings.derivative` names; itself, for gradients.

    Raises UnsupportedError where there is no such derivative: at a kink, if it is a second one; of a loss that decides
    something at the point, or that is no sum or mean over examples. Raises GradwitnessError for a gradient by hand, and
    for a loss in a framework's own arrays that cannot be read into a graph, or whose graph does not prove to be it.
    """
    if case.settings.derivative == "gradient":
        return case
    for label, candidate in case.candidates.items():
        if candidate.is_written_by_hand:
            raise GradwitnessError(f"{label}: a gradient by hand has no further derivative: leave it out")
        if case.settings.derivative == "per-example" and isinstance(candidate.loss, Graph):
            raise GradwitnessError(OF_A_BATCH.format(name=label))
    asked = _Asked(case, progress)
    moved = DERIVATIVES[asked.derivative](asked)
    candidates: dict[str, Candidate] = {}
    for label, candidate in case.candidates.items():
        candidates |= _ways(label, candidate, moved, asked.derivative)
    settings = replace(case.settings, derivative="gradient", paths=())  # the ways stand for paths
    return replace(case, problem=moved.problem, candidates=candidates, settings=settings)


def _ways(label: str, candidate: Candidate, moved: _Moved, derivative: str) -> dict[str, Candidate]:
    """The candidate in each of its backend's ways; where it has none, and runs what all run, by the graph."""
    ways = registry.backend(candidate.backend).capabilities.ways.get(derivative, ())
    loss: Any = moved.plain if candidate.loss is None else candidate.loss
    if not ways and isinstance(candidate.loss, Graph) and candidate.loss is not moved.plain:
        raise GradwitnessError(
            f"{label}: {candidate.backend} takes {derivative} of the loss of all, and of no other Graph: leave it out"
        )
    if not ways and callable(candidate.loss):
        return {label: candidate}  # which says itself that it differentiates none
    if not ways or loss is None:
        return {label: replace(candidate, loss=None)}
    return {f"{label} [{way}]": replace(candidate, loss=Derived(loss, moved.at, way)) for way in ways}


# The derivatives, each by its name


def _product_with_hessian(asked: _Asked) -> _Moved:
    """The loss is the derivative along a direction, its gradient the product of the Hessian with that."""
    graph = _graph(asked)
    wrt = _leaves_of(graph, asked)
    _expect_smooth(graph, asked)
    leaves = asked.problem.leaves
    along = _normal({direction(path): leaves[path].shape for path in wrt}, asked.rng)
    return _moved(asked, graph, tangent(graph, wrt), {path: leaves[path] for path in wrt}, along)


def _hessian(asked: _Asked) -> _Moved:
    """The same: what a framework gives of the whole Hessian is multiplied with the direction."""
    count = sum(asked.problem.leaves[path].size for path in asked.problem.differentiated)
    if count > PARAMETERS:
        raise UnsupportedError(
            f"{asked.problem.name}: a Hessian by {count:,} parameters is too large, {PARAMETERS:,} at most: name fewer "
            'leaves, by wrt=, or take derivative="hvp", its product with a direction'
        )
    return _product_with_hessian(asked)


def _along_steps(asked: _Asked) -> _Moved:
    """The loss is that after steps along directions, its gradient at 0 the derivatives along them."""
    graph = _graph(asked)
    wrt = _leaves_of(graph, asked)
    leaves = asked.problem.leaves
    along = _normal({direction(path): (DIRECTIONS, *leaves[path].shape) for path in wrt}, asked.rng)
    steps = {step(path): np.zeros(DIRECTIONS) for path in wrt}
    return _moved(asked, graph, stepped(graph, wrt, DIRECTIONS), steps, along)


def _as_it_is(asked: _Asked) -> _Moved:
    """The gradient itself, of all outputs times the cotangent, which the frameworks' vjp gives."""
    graph = _graph(asked)
    return _moved(asked, graph, graph, {path: asked.problem.leaves[path] for path in _leaves_of(graph, asked)}, {})


def _for_each_example(asked: _Asked) -> _Moved:
    """The loss is the sum over examples, each at a copy of the params."""
    problem = _of_few_examples(asked.problem)
    asked = asked.of_examples(problem)
    _expect_parts(asked)
    single = problem.by_example
    alone = [problem.example(number) for number in range(problem.examples)]
    _expect_proven(asked)
    graphs = [_read_graph(asked.of_examples(one)) for one in alone]
    wrt = tuple(path for path in problem.differentiated if any(path in graph.leaves for graph in graphs))
    stacks = {path: np.stack([problem.leaves[path]] * len(graphs)) for path in wrt}
    examples = {of_example(path, number): one.leaves[path] for number, one in enumerate(alone) for path in single}
    moved = _moved(asked, graphs[0], by_example(graphs, wrt, single), stacks, examples)
    plain = moved.plain if problem.loss is not None else None  # else each example has a graph of its own
    return replace(moved, plain=plain, at=replace(problem, wrt=wrt))


DERIVATIVES: Mapping[str, Callable[[_Asked], _Moved]] = {
    "jvp": _along_steps,
    "vjp": _as_it_is,
    "hvp": _product_with_hessian,
    "hessian": _hessian,
    "per-example": _for_each_example,
}


def _moved(asked: _Asked, graph: Graph, loss: Graph, params: dict[str, Array], more: Mapping[str, Array]) -> _Moved:
    """more: leaves that the derivative needs beside those of the problem."""
    problem = asked.problem
    batch = {path: x for path, x in problem.leaves.items() if path not in params} | dict(more)
    return _Moved(Problem(problem.name, loss, params, batch), replace(problem, wrt=_leaves_of(graph, asked)), graph)


def _leaves_of(graph: Graph, asked: _Asked) -> tuple[str, ...]:
    """The leaves to differentiate by that the loss reads."""
    return tuple(path for path in asked.problem.differentiated if path in graph.leaves)


def _normal(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Array]:
    return {path: np.asarray(rng.standard_normal(shape)) for path, shape in shapes.items()}


# The graph of the loss, and what must hold of it


def _graph(asked: _Asked) -> Graph:
    """That of the loss of all, or of the candidates' own, once that has proved to be theirs."""
    graph = _read_graph(asked)
    _expect_proven(asked)
    return graph


def _read_graph(asked: _Asked) -> Graph:
    """The same, whether or not it is theirs. What is detached stays so."""
    case, problem = asked.case, asked.problem
    if problem.loss is not None:
        return problem.graph
    _, graph = any_captured(asked.own, problem, prepare=partial(prepare, settings=case.settings), stops=True)
    if decided := [remark for remark in graph.remarks if remark.kind != "detached"]:
        told = {"derivative": asked.derivative, "text": decided[0].text, "line": decided[0].line}
        raise UnsupportedError(DECIDED.format(**told))
    return graph


def _expect_proven(asked: _Asked) -> None:
    """Raise GradwitnessError unless the graphs of the candidates' own losses prove to be them, by their gradients.

    What a loss detaches stands still in its further derivatives: where that makes its gradient another than the
    derivative, it is to be declared, as for gradients.
    """
    case, problem = asked.case, asked.problem
    if problem.loss is not None:
        return
    first: Settings = replace(case.settings, derivative="gradient", dtypes=("float64",), paths=())
    for row in verify_problem(problem, asked.own, first, progress=asked.progress):
        is_shown = row.captured is not None or row.verdict in (Verdict.INTENDED, Verdict.UNSUPPORTED)
        if not is_shown and not isinstance(case.candidates[row.candidate].loss, Graph):
            why = row.not_captured or row.message or str(row.verdict)
            raise GradwitnessError(UNPROVEN.format(label=row.candidate, derivative=asked.derivative, why=why))
        if row.verdict in WRONG and any(remark.startswith(IS_DETACHED) for remark in row.remarks):
            raise GradwitnessError(DETACHED.format(label=row.candidate, derivative=asked.derivative, why=row.message))


def _expect_smooth(graph: Graph, asked: _Asked) -> None:
    """Raise UnsupportedError where a unit stands at its kink at this very point: it has no second derivative there."""
    problem = replace(asked.problem, loss=graph, intended={})
    known = graph_referee(problem, "float64", asked.case.settings)
    if known.kinked:
        raise UnsupportedError(
            f"{problem.name}: at this very point the gradient of {', '.join(known.kinked)} depends on the slope that "
            "is chosen at a kink, so there is no second derivative: take another point"
        )


def _of_few_examples(problem: Problem) -> Problem:
    """The problem with its first examples only, which its name says as a slice."""
    if isinstance(problem.loss, Graph):
        raise GradwitnessError(OF_A_BATCH.format(name=problem.name))
    if problem.examples < 2:
        raise UnsupportedError(
            f"{problem.name}: no array of the batch holds two examples or more, along a first axis that they share"
        )
    if problem.examples <= EXAMPLES:
        return problem
    few = problem.with_examples(EXAMPLES)
    return replace(few, name=f"{problem.name}[:{EXAMPLES}]")


def _expect_parts(asked: _Asked) -> None:
    """Raise UnsupportedError unless the gradients of examples are parts of that of the batch."""
    problem = asked.problem

    def of_graph(leaves: Mapping[str, Array]) -> float:
        at, interpreter = problem.resized(leaves), registry.interpreter()
        return interpreter.loss(interpreter.forward(at.graph, at.leaves))

    def of(candidate: Candidate) -> Callable[[Mapping[str, Array]], float]:
        def value(leaves: Mapping[str, Array]) -> float:
            at = problem.resized(leaves)
            return prepare(candidate, at, "float64", "cpu", asked.case.settings).value(at.primals)

        return value

    values = [of_graph] if problem.loss is not None else [of(one) for one in asked.own.values()]
    for value in values:
        try:
            value(problem.leaves)
        except Exception:  # noqa: BLE001  # who does not run in float64 is told so where its gradient is judged
            continue
        try:
            reduction_over_examples(problem, value, FLOAT32)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{problem.name}: the gradients of its examples are no parts of that of the batch: {error}"
            ) from error
