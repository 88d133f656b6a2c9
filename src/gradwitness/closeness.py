"""Two gradients at hand, held against each other with the floor of the loss that they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gradwitness import registry, tree
from gradwitness.arithmetic import Arithmetic
from gradwitness.capturing import any_captured
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.noise_floor import joint
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import floors, node_reach, over
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem, as_array
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness.verdict.checks import compare
from gradwitness.verdict.verdicts import place_of

__all__ = ["assert_gradients_close"]


def assert_gradients_close(
    mine: Any,
    theirs: Any,
    *,
    loss: Callable[..., Any] | Graph | Candidate | Mapping[str, Any],
    params: Any,
    batch: Any = None,
    dtype: str | None = None,
) -> None:
    """Raise AssertionError if two gradients that you already have differ by more than rounding explains.

    mine, theirs: trees shaped like params, in any framework's arrays; a leaf of None counts as zeros.
    loss: the loss that they are the gradients of, at these params and this batch. It is a loss over `gradwitness.ops`,
    its Graph, a Candidate, or a bare loss under its backend's name, {"torch": loss}. A loss in torch or jax is
    captured.
    params, batch: nested dicts, lists or tuples of arrays.
    dtype: the dtype in which both were computed; by default the narrowest of params.

    You give no tolerance: the noise floor is measured at this point. The message says how far apart the gradients are,
    where, and which of the two is not the derivative.

    Raises CaptureError if the loss cannot be read into a graph.
    """
    __tracebackhide__ = True  # pytest shows the line that called it
    problem, backend = _problem(loss, params, {} if batch is None else batch)
    chosen = dtype or problem.own_dtypes[-1]
    known = graph_referee(problem, chosen, Settings(dtypes=(chosen,)))
    arithmetic = registry.backend(backend).capabilities.arithmetic(chosen)
    given = {name: _by_path(gradient, problem, name) for name, gradient in (("mine", mine), ("theirs", theirs))}
    lines = [_apart(path, given, known, arithmetic) for path in problem.differentiated]
    if found := [line for line in lines if line]:
        raise AssertionError("\n".join(found))


def _problem(loss: Any, params: Any, batch: Any) -> tuple[Problem, str]:
    """(the problem, of a graph, the name of the backend whose rounding counts)."""
    if not isinstance(loss, Candidate | Mapping):
        return Problem("gradients", loss, params, batch), "numpy"
    several = {loss.backend: loss} if isinstance(loss, Candidate) else dict(loss)
    candidates = {name: one if isinstance(one, Candidate) else Candidate(name, one) for name, one in several.items()}
    problem = Problem("gradients", None, params, batch)
    candidate, graph = any_captured(candidates, problem)
    return replace(problem, loss=graph), candidate.backend


def _by_path(gradient: Any, problem: Problem, name: str) -> dict[str, Array]:
    given = tree.flatten(gradient, "params")
    if unknown := [path for path in given if path not in problem.differentiated]:
        raise GradwitnessError(
            f"{name} has {', '.join(unknown)}, which is no leaf of params; give a tree shaped like params, of "
            f"{', '.join(problem.differentiated)}"
        )
    found = {}
    for path, x in problem.primals.items():
        array = np.zeros(x.shape) if given.get(path) is None else as_array(given[path], path).astype(np.float64)
        if array.shape != x.shape:
            raise AssertionError(f"{path}: {name} has shape {array.shape}, its parameter {x.shape}")
        found[path] = array
    return found


def _apart(path: str, given: Mapping[str, Mapping[str, Array]], known: FromGraph, arithmetic: Arithmetic) -> str:
    """In what the two differ at a leaf; empty if rounding explains it."""
    mine, theirs = given["mine"][path], given["theirs"][path]
    floor = known.floors_of(arithmetic).tensors[path]
    both, reach, error = joint(floor, floor), node_reach(floor), mine - theirs
    distance = compare(error, both, reach)
    if distance.ratio <= 1:
        return ""
    where = int(np.argmax(over(np.abs(error), both.elements)))
    size = max(norm(mine), norm(theirs))
    off = [
        name
        for name in given
        if not compare(known.gradients[path].error_of(given[name][path]), floor, reach).ratio <= 1
    ]
    blame = (
        f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off from the derivative" if off else "neither is far"
    )
    return (
        f"{path}: they differ by {distance.error / size:.2g} of their norm, {floors(distance.error / both.norm)}; "
        f"worst at {place_of(where, mine.shape)}: {mine.flat[where]:.9g} against {theirs.flat[where]:.9g}; {blame}"
    )
