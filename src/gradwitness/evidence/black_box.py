"""What can be known of a gradient whose loss is known by its values alone: a user's own function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.computational_noise import computational_noise
from gradwitness.evidence.finite_difference import THOROUGH, Differences, Differencing
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import NoiseFloor, TensorFloor, joint
from gradwitness.evidence.norms import norm, typical
from gradwitness.problem import Problem
from gradwitness.protocol import Prepared

__all__ = ["OwnEvidence", "own_evidence"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]


@dataclass(frozen=True)
class OwnEvidence:
    """What a candidate's own loss says about its gradient at one point.

    losses: the floors of the loss at the point and at each neighbour. sensitivity: by leaf, the spread
    that jittered inputs make in float64; floors: that and the spread in the dtype's own arithmetic.
    fine: the gradients in float64, None where the dtype on trial is float64 or there is no other.
    differences: by each leaf, which `differencing` can extend; dtype: that in which they were taken.
    scale: the largest product of gradient and value of any leaf.
    """

    losses: tuple[TensorFloor, ...]
    sensitivity: Mapping[str, TensorFloor]
    floors: Mapping[str, TensorFloor]
    fine: Mapping[str, Array] | None
    differences: Mapping[str, Differences]
    differencing: Differencing
    dtype: str
    scale: float


def own_evidence(
    narrow: Prepared,
    wide: Prepared | None,
    problem: Problem,
    dtype: str,
    neighbours: Sequence[Leaves],
    *,
    seed: int,
) -> OwnEvidence:
    """Gather it from the candidate in the dtype on trial, `narrow`, and in float64, `wide`, unless it has none.

    The problem is at a point that `dtype` can hold. In float64 the two are the same.
    """
    finest, taken_in = (narrow, dtype) if wide is None else (wide, "float64")
    jitters = [(narrow, Jitter(dtype, True, problem.differentiated, (seed, 1)))]
    jitters += [] if wide is None else [(wide, Jitter(dtype, False, problem.differentiated, (seed, 1)))]
    floors = [_floor(prepared, jitter, problem) for prepared, jitter in jitters]
    floating, wanted = _floating(problem), problem.primals
    nearby = [
        reduce(joint, (jitter.value_floor(prepared.value, {**floating, **place}) for prepared, jitter in jitters))
        for place in neighbours
    ]
    differencing = _differencing(finest, problem, taken_in, seed)
    gradients = _run(finest, problem, wanted)[1]
    return OwnEvidence(
        (reduce(joint, (floor.value for floor in floors)), *nearby),
        floors[-1].tensors,
        {path: joint(floors[0].tensors[path], floors[-1].tensors[path]) for path in wanted},
        None if wide is None or dtype == "float64" else gradients,
        differencing.by_every_leaf(THOROUGH, seed=(seed, 2)),
        differencing,
        taken_in,
        max(norm(g) * typical(wanted[path]) for path, g in gradients.items()),
    )


def _floating(problem: Problem) -> dict[str, Array]:
    return {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"}


def _floor(prepared: Prepared, jitter: Jitter, problem: Problem) -> NoiseFloor:
    run, floating = partial(_run, prepared, problem), _floating(problem)
    return jitter.floor(run, floating, run(floating))


def _run(prepared: Prepared, problem: Problem, leaves: Leaves) -> tuple[float, dict[str, Array]]:
    """The loss, and the gradients in float64; None, and what is misshapen, as zeros."""
    loss, given = prepared.value_and_gradient(leaves)
    gradients = {path: np.zeros(x.shape) for path, x in problem.primals.items()}
    for path, zeros in gradients.items():
        found = given.get(path)
        if found is not None and found.shape == zeros.shape:
            gradients[path] = found.astype(np.float64)
    return loss, gradients


def _differencing(prepared: Prepared, problem: Problem, dtype: str, seed: int) -> Differencing:
    """Differences of the loss. Where it raises, as it has left its domain, it is NaN, and that difference is dropped.

    Its rounding error is measured, as a loss called in float64 may compute in less; it is at least u |loss|.
    """

    def value(leaves: Leaves) -> float:
        try:
            return prepared.value(leaves)
        except Exception:  # noqa: BLE001  # a domain error may be any
            return math.nan

    rng, primals = np.random.default_rng([seed, 5]), problem.primals
    directions = {path: rng.standard_normal(x.shape) * typical(x) for path, x in primals.items()}
    noise = computational_noise(lambda t: value({path: x + t * directions[path] for path, x in primals.items()}))
    loss = prepared.value(primals)
    noise = max(noise, find_dtype(dtype).unit_roundoff * abs(loss))
    return Differencing(lambda path, moved: value({**primals, path: moved}), primals, loss, noise)
