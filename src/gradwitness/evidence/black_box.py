"""What can be known of a gradient whose loss is known by its values alone: a user's own function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.computational_noise import computational_noise
from gradwitness.evidence.finite_difference import Differences, Differencing
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.problem import Problem
from gradwitness.protocol import Prepared

__all__ = ["OwnEvidence", "own_evidence"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]


@dataclass(frozen=True)
class OwnEvidence:
    """What a candidate's own loss says about its gradient at one point.

    losses: the jitter floors of the loss at the point and at each neighbour; floors: those of the
    gradients. differences: by each leaf, which `differencing` can extend. dtype: that in which they were taken.
    """

    losses: tuple[float, ...]
    floors: Mapping[str, TensorFloor]
    differences: Mapping[str, Differences]
    differencing: Differencing
    dtype: str


def own_evidence(
    prepared: Prepared,
    problem: Problem,
    dtype: str,
    neighbours: Sequence[Leaves],
    *,
    taken_in: str,
    seed: int,
) -> OwnEvidence:
    """Gather it from `prepared`, the candidate in `taken_in`: float64, or its own dtype where it has no other.

    The problem is at a point that `dtype`, the one on trial, can hold.
    """
    jitter = Jitter(dtype, wide=taken_in == "float64", seed=(seed, 1))
    floating = {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"}
    floor = jitter.floor(lambda leaves: _run(prepared, problem, leaves), floating)
    nearby = [jitter.value_floor(prepared.value, {**floating, **neighbour}) for neighbour in neighbours]

    def loss_of(path: str, moved: Array) -> float:
        return prepared.value({**problem.primals, path: moved})

    loss = prepared.value(problem.primals)
    differencing = Differencing(loss_of, problem.primals, loss, _noise(prepared, problem, loss, taken_in, seed))
    differences = differencing.by_every_leaf(seed=(seed, 2))
    return OwnEvidence((floor.value, *nearby), floor.tensors, differences, differencing, taken_in)


def _run(prepared: Prepared, problem: Problem, leaves: Leaves) -> tuple[float, dict[str, Array]]:
    """The loss, and the gradients in float64; None, and what is misshapen, as zeros."""
    loss, given = prepared.value_and_gradient(leaves)
    gradients = {path: np.zeros(x.shape) for path, x in problem.primals.items()}
    for path, zeros in gradients.items():
        found = given.get(path)
        if found is not None and found.shape == zeros.shape:
            gradients[path] = found.astype(np.float64)
    return loss, gradients


def _noise(prepared: Prepared, problem: Problem, loss: float, dtype: str, seed: int) -> float:
    """The rounding error of the loss: measured, as a loss called in float64 may compute in less; at least u |loss|."""
    rng = np.random.default_rng([seed, 5])
    directions = {
        path: rng.standard_normal(x.shape) * (float(np.sqrt(np.mean(x * x))) or 1.0)
        for path, x in problem.primals.items()
    }

    def along(t: float) -> float:
        return prepared.value({path: x + t * directions[path] for path, x in problem.primals.items()})

    return max(computational_noise(along), find_dtype(dtype).unit_roundoff * abs(loss))
