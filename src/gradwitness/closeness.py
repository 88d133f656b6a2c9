"""Two gradients at hand, held against each other with the floor of the loss that they are of, and against that loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradwitness import registry, tree
from gradwitness.capturing import any_captured
from gradwitness.dtypes import DTYPES, Array, find_dtype
from gradwitness.errors import GradwitnessError
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.noise_floor import TensorFloor, joint
from gradwitness.evidence.norms import norm
from gradwitness.evidence.own_floors import as_gradient
from gradwitness.evidence.reach import floors, node_reach, over
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem, as_array, dtype_as_given
from gradwitness.run.cell import at_hand
from gradwitness.run.own_loss import OwnLoss
from gradwitness.run.referee import graph_referee
from gradwitness.run.rules import WRONG
from gradwitness.run.witness import Witness
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
    """Raise AssertionError if two gradients that you already have differ by more than rounding explains, or if they are
    close to each other and both off from the derivative of the loss.

    mine, theirs: trees shaped like params, in any framework's arrays; a leaf that is None, or not there, counts as
    zeros.
    loss: the loss that they are the gradients of, at these params and this batch. It is a loss over `gradwitness.ops`,
    its Graph, a Candidate, or a bare loss under its backend's name, {"torch": loss}. A loss in torch or jax is
    captured.
    params, batch: nested dicts, lists or tuples of arrays.
    dtype: the dtype in which both were computed; by default the narrowest of params and of both gradients.

    You give no tolerance: the noise floor is measured at this point. The message says how far apart the gradients are,
    where, which of the two is not the derivative, and which has no gradient there. Gradients that stop where the loss
    itself detaches are not off, and neither are those of a convention at a kink. Whom a captured loss cannot refute,
    as its graph does not prove to be the loss, is not called off either.

    Raises CaptureError if the loss cannot be read into a graph.
    """
    __tracebackhide__ = True  # pytest shows the line that called it
    problem, candidate = _problem(loss, params, {} if batch is None else batch)
    both = {name: _arrays(gradient, problem, name) for name, gradient in (("mine", mine), ("theirs", theirs))}
    chosen = dtype or _narrowest(problem, both)
    settings = Settings(dtypes=(chosen,))
    known = graph_referee(problem, chosen, settings)
    hands = [_Hand(name, _by_path(given, problem, name), candidate, known, settings) for name, given in both.items()]
    if found := [line for path in problem.differentiated if (line := _wrong(path, *hands))]:
        raise AssertionError("\n".join(found))


def _problem(loss: Any, params: Any, batch: Any) -> tuple[Problem, Candidate]:
    """(the problem, of a graph, the candidate whose loss it is and whose rounding counts)."""
    if not isinstance(loss, Candidate | Mapping):
        problem = Problem("gradients", loss, params, batch)
        return problem, Candidate("numpy", problem.graph)
    several = {loss.backend: loss} if isinstance(loss, Candidate) else dict(loss)
    candidates = {name: one if isinstance(one, Candidate) else Candidate(name, one) for name, one in several.items()}
    problem = Problem("gradients", None, params, batch)
    candidate, graph = any_captured(candidates, problem)
    return replace(problem, loss=graph), candidate


def _arrays(gradient: Any, problem: Problem, name: str) -> dict[str, Any]:
    """The arrays of a gradient, by path."""
    given = tree.flatten(gradient, "params")
    if unknown := [path for path in given if path not in problem.differentiated]:
        raise GradwitnessError(
            f"{name} has {', '.join(unknown)}, which is no leaf of params; give a tree shaped like params, of "
            f"{', '.join(problem.differentiated)}"
        )
    return given


def _narrowest(problem: Problem, gradients: Mapping[str, Mapping[str, Any]]) -> str:
    """The narrowest dtype of the params and of what was computed: jax gives float32 for params in float64, unless it is
    told otherwise."""
    given = {dtype_as_given(x) for gradient in gradients.values() for x in gradient.values() if x is not None}
    return max(given & DTYPES.keys() | {problem.own_dtypes[-1]}, key=lambda dtype: find_dtype(dtype).unit_roundoff)


def _by_path(given: Mapping[str, Any], problem: Problem, name: str) -> dict[str, Array | None]:
    found: dict[str, Array | None] = {}
    for path, x in problem.primals.items():
        array = None if given.get(path) is None else as_array(given[path], path).astype(np.float64)
        if array is not None and array.shape != x.shape:
            raise AssertionError(f"{path}: {name} has shape {array.shape}, its parameter {x.shape}")
        found[path] = array
    return found


@dataclass(frozen=True)
class _Hand:
    """A gradient at hand. given: by path, None where it has none. candidate: whose loss it is of; known: what is
    known of that as a graph."""

    name: str
    given: Mapping[str, Array | None]
    candidate: Candidate
    known: FromGraph
    settings: Settings

    def at(self, path: str) -> Array:
        return as_gradient(self.given[path], self.known.problem.primals[path].shape)

    def floor(self, path: str) -> TensorFloor:
        arithmetic = registry.backend(self.candidate.backend).capabilities.arithmetic(self.known.dtype)
        return self.known.floors_of(arithmetic).tensors[path]

    def error(self, path: str) -> Array:
        return self.known.gradients[path].error_of(self.at(path))

    def is_far(self, path: str) -> bool:
        """Whether it is farther from the derivative of the graph than rounding there explains."""
        floor = self.floor(path)
        return not compare(self.error(path), floor, node_reach(floor)).ratio <= 1

    def is_off(self, path: str) -> bool:
        """Whether it is not the derivative of the loss, whatever conventions, detached values and the roundings of its
        own operations there are."""
        if not self.is_far(path):
            return False
        witness = self._witness
        if witness.judged(path).verdict not in WRONG:
            return False
        return not isinstance(witness, OwnLoss) or (path in witness.by_graph and not witness.stops_at(path))

    @cached_property
    def _witness(self) -> Witness:
        problem = replace(self.known.problem, loss=None)
        return at_hand(self.given, self.candidate, problem, self.known.dtype, self.settings)


def _wrong(path: str, mine: _Hand, theirs: _Hand) -> str:
    """What is wrong with the two at a leaf; empty if nothing is."""
    if undefined := [hand for hand in (mine, theirs) if not np.all(np.isfinite(hand.at(path)))]:
        return f"{path}: {'; '.join(_undefined(path, hand) for hand in undefined)}"
    floor, apart = mine.floor(path), mine.at(path) - theirs.at(path)
    both, reach = joint(floor, floor), node_reach(floor)
    if compare(apart, both, reach).ratio > 1:
        said = _apart(path, mine, theirs, both)
    elif mine.is_off(path) and theirs.is_off(path):
        said = _off_alike(path, mine)
    else:
        return ""
    lacking = [hand.name for hand in (mine, theirs) if hand.given[path] is None]
    return f"{path}: {said}" + (
        f"; {_named(lacking, 'has', 'have')} no gradient, which counts as zeros" if lacking else ""
    )


def _undefined(path: str, hand: _Hand) -> str:
    where = np.flatnonzero(~np.isfinite(hand.at(path)))
    first = place_of(int(where[0]), hand.at(path).shape)
    return f"{hand.name} is NaN or infinite at {first}{f' and {where.size - 1} more' if where.size > 1 else ''}"


def _apart(path: str, mine: _Hand, theirs: _Hand, both: TensorFloor) -> str:
    a, b = mine.at(path), theirs.at(path)
    where, distance = int(np.argmax(over(np.abs(a - b), both.elements))), norm(a - b)
    in_floors = floors(float(over(distance, both.norm)))
    return (
        f"they differ by {distance / max(norm(a), norm(b)):.2g} of their norm, {in_floors}; "
        f"worst at {place_of(where, a.shape)}: {a.flat[where]:.9g} against {b.flat[where]:.9g}; "
        f"{_blame(path, mine, theirs)}"
    )


def _blame(path: str, *hands: _Hand) -> str:
    if off := [hand.name for hand in hands if hand.is_off(path)]:
        return f"{_named(off, 'is', 'are')} off from the derivative"
    return "which is off cannot be told" if any(hand.is_far(path) for hand in hands) else "neither is far"


def _off_alike(path: str, mine: _Hand) -> str:
    error, floor, truth = mine.error(path), mine.floor(path), mine.known.gradients[path].high
    where, size = int(np.argmax(over(np.abs(error), floor.elements))), norm(truth)
    part = f"{norm(error) / size:.2g} of its norm" if size else f"{norm(error):.2g} where it is 0"
    return (
        f"mine and theirs are close to each other, and both are off from the derivative of the loss: by {part}, "
        f"{floors(float(over(norm(error), floor.norm)))}; worst at {place_of(where, truth.shape)}: "
        f"{mine.at(path).flat[where]:.9g}, expected {truth.flat[where]:.9g}"
    )


def _named(names: list[str], one: str, several: str) -> str:
    return f"{' and '.join(names)} {one if len(names) == 1 else several}"
