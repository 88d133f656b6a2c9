"""The referee at one point: the hand-derived gradient in float64, held against finite differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.finite_difference import Differences, finite_differences
from gradwitness.evidence.noise_floor import NoiseFloor, TensorFloor, noise_floor, value_floor
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Testimony", "testimony"]

Array = np.ndarray[Any, Any]
NEIGHBOURS = 2
DISTANCE = 0.1  # of each tensor's rms
REDRAWS = 20


@dataclass(frozen=True)
class Testimony:
    """All that is known about a problem's gradient at the point that `dtype` can hold.

    losses, loss_floors: the loss and its rounding spread at the point and at each of `neighbours`.
    gradients: the referee's, by path, float64.
    """

    problem: Problem
    dtype: str
    losses: tuple[float, ...]
    loss_floors: tuple[float, ...]
    neighbours: tuple[Mapping[str, Array], ...]
    gradients: dict[str, Array]
    floor: NoiseFloor
    differences: dict[str, Differences]
    reached: frozenset[str]


def testimony(interpreter: Interpreter, problem: Problem, dtype: str, *, seed: int) -> Testimony:
    """Gather it: one gradient, perturbed runs for the floors, and finite differences."""
    problem = problem.rounded(dtype)
    graph, wrt = problem.graph, problem.differentiated
    tape = interpreter.forward(graph, problem.leaves)
    loss, found = interpreter.loss(tape), interpreter.backward(tape, wrt)
    gradients = {path: np.array(found.get(path, np.zeros(problem.leaves[path].shape)), np.float64) for path in wrt}
    floor = noise_floor(interpreter, graph, problem.leaves, wrt, dtype, seed=(seed, 1))
    for path in set(wrt) - set(floor.tensors):  # leaves that no path connects with the loss
        floor.tensors[path] = TensorFloor(0.0, np.zeros(gradients[path].shape))

    def loss_of(path: str, moved: Array) -> float:
        if path not in graph.leaves:
            return loss
        return interpreter.loss(interpreter.forward(graph, {**problem.leaves, path: moved}, reuse=tape, changed=[path]))

    narrowing = find_dtype("float64").unit_roundoff / find_dtype(dtype).unit_roundoff
    noise = max(floor.value * narrowing, abs(loss) * find_dtype("float64").unit_roundoff)
    differences = finite_differences(loss_of, problem.primals, loss, noise, seed=(seed, 2))
    neighbours = _neighbours(interpreter, problem, dtype, seed)
    nearby = [value_floor(interpreter, graph, {**problem.leaves, **n}, dtype, seed=(seed, 3)) for n in neighbours]
    return Testimony(
        problem,
        dtype,
        (loss, *(_loss_at(interpreter, problem, n) for n in neighbours)),
        (floor.value, *nearby),
        tuple(neighbours),
        gradients,
        floor,
        differences,
        frozenset(path for path in wrt if path in found),
    )


def _loss_at(interpreter: Interpreter, problem: Problem, leaves: Mapping[str, Array]) -> float:
    return interpreter.loss(interpreter.forward(problem.graph, {**problem.leaves, **leaves}))


def _neighbours(interpreter: Interpreter, problem: Problem, dtype: str, seed: int) -> list[dict[str, Array]]:
    """Seeded Gaussian neighbours of the primals, redrawn where the loss is not finite there."""
    rng = np.random.default_rng([seed, 4])
    found: list[dict[str, Array]] = []
    for _ in range(REDRAWS):
        drawn = problem.at({path: _moved(x, rng) for path, x in problem.primals.items()}).rounded(dtype).primals
        if np.isfinite(_loss_at(interpreter, problem, drawn)):
            found.append(drawn)
        if len(found) == NEIGHBOURS:
            break
    return found


def _moved(x: Array, rng: np.random.Generator) -> Array:
    typical = float(np.sqrt(np.mean(x * x))) or 1.0
    moved: Array = x + DISTANCE * typical * rng.standard_normal(x.shape)
    return moved

