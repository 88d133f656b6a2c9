"""What an arithmetic other than the dtype's own would make of loss and gradients.

Where a library rounds the factors of products further than the dtype does, its errors are no noise: they can be
foretold. Each run of the Monte Carlo carries these roundings out; the mean of the runs is then what such a candidate
gives, and their spread is what is left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array
from gradwitness.evidence.noise_floor import TensorFloor, tensor_floor
from gradwitness.evidence.perturbed_runs import PerturbedRuns
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Prediction", "Predictions", "predictions"]


NO_PRODUCTS = ("avg_pool2d",)  # its definition is a convolution with ones, which libraries do not carry out as one

# A factor half way between two short numbers may be rounded to either. That is rare: it may have happened to a
# candidate and in no run. It moves a gradient by a small part of what the reduction does in all; an element, which may
# be a sum of few products, by more than is typical of its row.
FLIPPED_BY_NORM = 1 / 25
FLIPPED_BY_ELEMENT = 1 / 4


@dataclass(frozen=True)
class Prediction:
    """How far an arithmetic moves a loss or a gradient from the exact one.

    shift: by this, of its shape; zeros where it is not foretold. floor: what is left open. size: how far in all, in
    root mean square.
    """

    shift: Array
    floor: TensorFloor
    size: TensorFloor


@dataclass(frozen=True)
class Predictions:
    """Of the loss at the point and at each neighbour, and of each gradient by path."""

    losses: tuple[Prediction, ...]
    tensors: dict[str, Prediction]


def predictions(
    interpreter: Interpreter,
    problem: Problem,
    neighbours: Sequence[Mapping[str, Array]],
    dtype: str,
    arithmetic: Arithmetic,
    *,
    seed: int,
) -> Predictions:
    """What candidates that round like this give, by `RUNS` perturbed runs at the point and at each neighbour."""
    graph, wrt, leaves = problem.graph.decomposed(NO_PRODUCTS), problem.differentiated, problem.leaves
    _, runs = PerturbedRuns(interpreter, graph, leaves, dtype, (seed, 1), arithmetic).gradients(wrt)
    losses, moved = zip(*runs, strict=True)
    nearby = [
        PerturbedRuns(interpreter, graph, {**leaves, **n}, dtype, (seed, 3), arithmetic).losses() for n in neighbours
    ]
    foretold = arithmetic.operands is not None
    unreached = {path: np.zeros((1, *leaves[path].shape)) for path in wrt if path not in moved[0]}
    reached = {path: np.array([found[path] for found in moved]) for path in moved[0]}
    return Predictions(
        tuple(_prediction(found, foretold) for found in (np.array(losses), *nearby)),
        {path: _prediction(found, foretold) for path, found in (reached | unreached).items()},
    )


def _prediction(deviations: Array, foretold: bool) -> Prediction:
    size = tensor_floor(deviations)
    if not foretold:
        return Prediction(np.zeros(size.elements.shape), size, size)
    shift = np.mean(deviations, axis=0)
    about = tensor_floor(deviations - shift)
    floor = TensorFloor(
        float(np.hypot(about.norm, FLIPPED_BY_NORM * size.norm)),
        np.hypot(about.elements, FLIPPED_BY_ELEMENT * size.elements),
        about.runs,
    )
    return Prediction(shift, floor, size)
