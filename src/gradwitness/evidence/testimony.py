"""What is known about a gradient at one point: the reference, the noise floors, finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import find_dtype
from gradwitness.evidence.beside import beside_kinks
from gradwitness.evidence.effort import Affordable, affordable_reference, reference_seconds
from gradwitness.evidence.finite_difference import BRIEF, Differences, Differencing
from gradwitness.evidence.local_slopes import LocalSlopes, local_slopes
from gradwitness.evidence.neighbours import draw_neighbours
from gradwitness.evidence.noise_floor import TensorFloor, noise_floor, value_floor
from gradwitness.evidence.prediction import Predictions, predictions
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Floors", "Testimony", "testimony"]

Array = np.ndarray[Any, Any]
FEW = 8  # perturbed runs, where only the loss is looked at


@dataclass(frozen=True)
class Floors:
    """What rounding explains: of the loss at the point and at each neighbour, and of each gradient by path."""

    losses: tuple[TensorFloor, ...]
    tensors: dict[str, TensorFloor]


@dataclass(frozen=True)
class Testimony:
    """All that is known about a problem's gradient at the point that `dtype` can hold.

    losses: the loss at the point and at each of `neighbours`. gradients: the reference, by path, hand-derived in
    256 bits if `extended`, else in float64. refused: the leaves without a gradient in 256 bits, each with the reason;
    it is one in float64. refuted: those of which differences in 256 bits say that it is wrong, or that this is a
    kink. floors_of: the floors of a candidate whose sums round with this arithmetic (`Capabilities.arithmetic`);
    predictions_of: what one with reduced precision gives. arithmetic: that of the gradients in float64. slopes: the
    units at kinks, if any. kinked: the leaves whose gradient depends on the slopes chosen there, each with what speaks
    against the rules beside the kink ("" if nothing does); their `gradients` take the vocabulary's own slopes.
    differencing: takes further differences.
    """

    problem: Problem
    dtype: str
    losses: tuple[float, ...]
    neighbours: tuple[Mapping[str, Array], ...]
    gradients: dict[str, Exact]
    extended: bool
    refused: Mapping[str, str]
    refuted: frozenset[str]
    arithmetic: Arithmetic
    differences: dict[str, Differences]
    reached: frozenset[str]
    floors_of: Callable[[Arithmetic], Floors]
    predictions_of: Callable[[Arithmetic], Predictions]
    slopes: LocalSlopes
    kinked: Mapping[str, str]
    differencing: Differencing


def testimony(
    interpreter: Interpreter, problem: Problem, dtype: str, *, arithmetic: Arithmetic, seed: int, seconds: float
) -> Testimony:
    """Gather it: the gradient, perturbed runs for the floors, and finite differences.

    arithmetic: how the interpreter's own float64 sums round. seconds: what a gradient in 256 bits may take; 0 to do
    without.
    """
    problem = problem.rounded(dtype)
    graph, wrt = problem.graph, problem.differentiated
    tape = interpreter.forward(graph, problem.leaves)
    loss, found = interpreter.loss(tape), interpreter.backward(tape, wrt)
    gradients = {path: exactly(found.get(path, np.zeros(problem.leaves[path].shape))) for path in wrt}
    extended = Affordable()
    if seconds:
        extended = affordable_reference(interpreter, problem, seconds=seconds, seed=(seed, 5))
    exact = extended.reference
    if exact is not None:
        gradients |= {path: g for path, g in exact.gradients.items() if path not in extended.refused}

    def is_usable(neighbour: Mapping[str, Array]) -> bool:
        leaves = {**problem.leaves, **neighbour}
        floor = value_floor(interpreter, graph, leaves, dtype, seed=(seed, 3), arithmetic=arithmetic, runs=1)
        return bool(np.isfinite(_loss_at(interpreter, problem, neighbour)) and np.isfinite(floor.norm))

    neighbours = draw_neighbours(problem.primals, is_usable, dtype, seed=(seed, 4))

    @cache
    def floors_of(arithmetic: Arithmetic) -> Floors:
        return _floors(interpreter, problem, neighbours, dtype, arithmetic, seed)

    @cache
    def predictions_of(arithmetic: Arithmetic) -> Predictions:
        return predictions(interpreter, problem, neighbours, dtype, arithmetic, seed=seed)

    def loss_of(path: str, moved: Array) -> float:
        if path not in graph.leaves:
            return loss
        return interpreter.loss(interpreter.forward(graph, {**problem.leaves, path: moved}, reuse=tape, changed=[path]))

    slopes = local_slopes(interpreter, problem, dtype, seed=(seed, 6))
    kinked = dict.fromkeys(path for path in wrt if path in found and slopes.only_exact.matters(path))
    bases = {path: slopes.only_exact.base(path, gradients[path]) for path in kinked}
    here = loss if exact is None else exact.loss
    narrowing = find_dtype("float64").unit_roundoff / find_dtype(dtype).unit_roundoff
    floor = value_floor(interpreter, graph, problem.leaves, dtype, seed=(seed, 1), arithmetic=arithmetic, runs=FEW)
    noise = max(floor.norm * narrowing, abs(loss) * find_dtype("float64").unit_roundoff)
    differencing = Differencing(loss_of, problem.primals, loss, noise)
    affordable = bool(kinked and seconds) and reference_seconds(interpreter, problem) <= seconds
    differences = differencing.by_every_leaf(BRIEF, seed=(seed, 2))
    for path in extended.probes.keys() - kinked.keys():  # beside a kink they see one side, whichever rounding took
        differences[path] = differences[path].with_probes(extended.probes[path])
    doubts = beside_kinks(interpreter, problem, differencing, tuple(kinked), seed=(seed, 7), extended=affordable)
    return Testimony(
        problem,
        dtype,
        (here, *(_loss_at(interpreter, problem, n) for n in neighbours)),
        neighbours,
        gradients | bases,
        exact is not None,
        {path: reason for path, reason in extended.refused.items() if doubts.get(path, reason)},
        extended.refuted,
        arithmetic,
        differences,
        frozenset(path for path in wrt if path in found),
        floors_of,
        predictions_of,
        slopes,
        doubts,
        differencing,
    )


def _floors(
    interpreter: Interpreter,
    problem: Problem,
    neighbours: Sequence[Mapping[str, Array]],
    dtype: str,
    arithmetic: Arithmetic,
    seed: int,
) -> Floors:
    graph, wrt = problem.graph, problem.differentiated
    here = noise_floor(interpreter, graph, problem.leaves, wrt, dtype, seed=(seed, 1), arithmetic=arithmetic)
    nearby = [
        value_floor(interpreter, graph, {**problem.leaves, **n}, dtype, seed=(seed, 3), arithmetic=arithmetic, runs=FEW)
        for n in neighbours
    ]
    unreached = {  # leaves that no path connects with the loss
        path: TensorFloor(0.0, np.zeros(problem.leaves[path].shape)) for path in wrt if path not in here.tensors
    }
    return Floors((here.value, *nearby), here.tensors | unreached)


def _loss_at(interpreter: Interpreter, problem: Problem, leaves: Mapping[str, Array]) -> float:
    return interpreter.loss(interpreter.forward(problem.graph, {**problem.leaves, **leaves}))
