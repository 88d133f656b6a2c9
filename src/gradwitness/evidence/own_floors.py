"""What rounding may explain of a user's own function: every operation inside is perturbed, or its inputs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradwitness.arithmetic import RoundingErrors
from gradwitness.dtypes import Array
from gradwitness.errors import UnsupportedError
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import Spread, TensorFloor, joint
from gradwitness.evidence.perturbed_runs import RUNS
from gradwitness.evidence.reach import JITTER_REACH, Reach, node_reach
from gradwitness.problem import Problem
from gradwitness.protocol import Perturbing, Prepared

__all__ = ["Answer", "OwnFloors", "as_gradient", "by_inputs", "by_node", "loss_floor_by_inputs", "loss_floor_by_node"]

Leaves = Mapping[str, Array]
Answer = tuple[float, Mapping[str, Array | None]]  # the loss, and the gradients
FEW = 8  # perturbed runs, where only the loss is looked at


@dataclass(frozen=True)
class OwnFloors:
    """Of the loss, and of each gradient by path.

    by_node: every operation inside was perturbed; else the inputs alone were jittered, which explains less.
    """

    loss: TensorFloor
    tensors: Mapping[str, TensorFloor]
    by_node: bool

    def reach(self, floor: TensorFloor) -> Reach:
        """How many of these floors rounding may reach."""
        return node_reach(floor) if self.by_node else JITTER_REACH


def by_node(
    prepared: Prepared, problem: Problem, answer: Answer, errors: RoundingErrors, seed: Sequence[int]
) -> OwnFloors | None:
    """By perturbed runs in float64, where `answer` is the unperturbed one; None for what cannot be looked into."""
    if not isinstance(prepared, Perturbing):
        return None
    shapes = {path: x.shape for path, x in problem.primals.items()}
    loss, spreads = Spread(()), {path: Spread(shape) for path, shape in shapes.items()}
    exact = {path: as_gradient(answer[1].get(path), shape) for path, shape in shapes.items()}
    try:
        for value, found in prepared.perturbed(problem.primals, errors, runs=RUNS, seed=seed):
            loss.add(np.array(value - answer[0]) / errors.amplification)
            for path, spread in spreads.items():
                spread.add((as_gradient(found.pop(path, None), shapes[path]) - exact[path]) / errors.amplification)
    except UnsupportedError:
        return None
    return OwnFloors(loss.floor(), {path: spreads.pop(path).floor() for path in shapes}, by_node=True)


def loss_floor_by_node(
    prepared: Prepared, place: Leaves, loss: float, errors: RoundingErrors, seed: Sequence[int]
) -> TensorFloor | None:
    """The same of the loss alone."""
    if not isinstance(prepared, Perturbing):
        return None
    spread = Spread(())
    try:
        for value, _ in prepared.perturbed(place, errors, runs=FEW, seed=seed, gradients=False):
            spread.add(np.array(value - loss) / errors.amplification)
    except UnsupportedError:
        return None
    return spread.floor()


def by_inputs(runs: Sequence[tuple[Prepared, Jitter]], problem: Problem) -> OwnFloors:
    """The spreads that jittered inputs make, in one arithmetic or in two."""
    floating = {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"}
    found = [jitter.floor(partial(_answer, prepared, problem), floating) for prepared, jitter in runs]
    loss, tensors = found[0].value, found[0].tensors
    for other in found[1:]:
        loss = joint(loss, other.value)
        tensors = {path: joint(floor, other.tensors[path]) for path, floor in tensors.items()}
    return OwnFloors(loss, tensors, by_node=False)


def loss_floor_by_inputs(runs: Sequence[tuple[Prepared, Jitter]], problem: Problem, place: Leaves) -> TensorFloor:
    """The same of the loss alone, with some leaves elsewhere."""
    floating = {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"} | dict(place)
    floors: Iterator[TensorFloor] = (jitter.value_floor(prepared.value, floating) for prepared, jitter in runs)
    floor = next(floors)
    for other in floors:
        floor = joint(floor, other)
    return floor


def _answer(prepared: Prepared, problem: Problem, leaves: Leaves) -> tuple[float, dict[str, Array]]:
    loss, given = prepared.value_and_gradient(leaves)
    return loss, {path: as_gradient(given.get(path), x.shape) for path, x in problem.primals.items()}


def as_gradient(gradient: Array | None, shape: tuple[int, ...]) -> Array:
    """In float64; None, and what is misshapen, as zeros."""
    fits = gradient is not None and gradient.shape == shape
    return np.asarray(gradient, np.float64) if fits else np.zeros(shape)
