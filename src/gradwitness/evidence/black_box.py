"""What can be known of a gradient whose loss is known by its values alone: a user's own function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness.dtypes import find_dtype
from gradwitness.errors import NoAnswerError, UnsupportedError
from gradwitness.evidence.computational_noise import computational_noise
from gradwitness.evidence.finite_difference import THOROUGH, Differences, Differencing
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import RUNS, NoiseFloor, TensorFloor, joint, tensor_floor
from gradwitness.evidence.norms import norm, typical
from gradwitness.problem import Problem
from gradwitness.protocol import Perturbing, Prepared

__all__ = ["OwnEvidence", "OwnFloors", "own_evidence"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]
FEW = 8  # perturbed runs, where only the loss is looked at


@dataclass(frozen=True)
class OwnFloors:
    """What rounding explains of a black box: of the loss at the point and at each neighbour, and of each gradient.

    by_node: every operation inside was perturbed; else the inputs alone were jittered, which explains less.
    """

    losses: tuple[TensorFloor, ...]
    tensors: Mapping[str, TensorFloor]
    by_node: bool


@dataclass(frozen=True)
class OwnEvidence:
    """What a candidate's own loss says about its gradient at one point.

    floors: in the dtype on trial. sensitivity: by leaf, the spread that jittered inputs make in float64.
    fine, fine_loss: the gradients and the loss in float64, None where the dtype on trial is float64 or there is no
    other.
    differences: by each leaf, which `differencing` can extend; dtype: that in which they were taken.
    scale: the largest product of gradient and value of any leaf.
    """

    floors: OwnFloors
    sensitivity: Mapping[str, TensorFloor]
    fine: Mapping[str, Array] | None
    fine_loss: float | None
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
    arithmetic: Arithmetic,
    seed: int,
) -> OwnEvidence:
    """Gather it from the candidate in the dtype on trial, `narrow`, and in float64, `wide`, unless it has none.

    The problem is at a point that `dtype` can hold. In float64 the two are the same. arithmetic: how the backend's
    sums round in that dtype.
    """
    finest, taken_in = (narrow, dtype) if wide is None else (wide, "float64")
    jitters = [(narrow, Jitter(dtype, True, problem.differentiated, (seed, 1)))]
    jitters += [] if wide is None else [(wide, Jitter(dtype, False, problem.differentiated, (seed, 1)))]
    sensitivity = _floor(*jitters[-1], problem)
    wanted = problem.primals
    errors = RoundingErrors.of(dtype, arithmetic)
    floors = None if wide is None else _by_node(wide, problem, errors, neighbours, seed)
    differencing = _differencing(finest, problem, taken_in, seed)
    loss, gradients = _run(finest, problem, wanted)
    has_finer = wide is not None and dtype != "float64"
    return OwnEvidence(
        floors or _by_inputs(jitters, sensitivity, problem, neighbours),
        sensitivity.tensors,
        gradients if has_finer else None,
        loss if has_finer else None,
        differencing.by_every_leaf(THOROUGH, seed=(seed, 2)),
        differencing,
        taken_in,
        max(norm(g) * typical(wanted[path]) for path, g in gradients.items()),
    )


def _by_node(
    wide: Prepared, problem: Problem, errors: RoundingErrors, neighbours: Sequence[Leaves], seed: int
) -> OwnFloors | None:
    """None for what cannot be looked into."""
    if not isinstance(wide, Perturbing):
        return None
    try:
        runs = list(wide.perturbed(problem.primals, errors, runs=RUNS, seed=(seed, 1)))
        nearby = [
            [value for value, _ in wide.perturbed(place, errors, runs=FEW, seed=(seed, 3), gradients=False)]
            for place in neighbours
        ]
    except UnsupportedError:
        return None
    loss, gradients = _run(wide, problem, problem.primals)
    losses = [_spread([value for value, _ in runs], loss, errors)]
    losses += [_spread(values, wide.value(place), errors) for values, place in zip(nearby, neighbours, strict=True)]
    tensors = {
        path: _spread([_or_zeros(found[path], g) for _, found in runs], g, errors) for path, g in gradients.items()
    }
    return OwnFloors(tuple(losses), tensors, by_node=True)


def _spread(values: Sequence[Any], unperturbed: Any, errors: RoundingErrors) -> TensorFloor:
    return tensor_floor((np.array(values) - unperturbed) / errors.amplification)


def _or_zeros(gradient: Array | None, like: Array) -> Array:
    fits = gradient is not None and gradient.shape == like.shape
    return np.asarray(gradient, np.float64) if fits else np.zeros(like.shape)


def _by_inputs(
    jitters: Sequence[tuple[Prepared, Jitter]],
    sensitivity: NoiseFloor,
    problem: Problem,
    neighbours: Sequence[Leaves],
) -> OwnFloors:
    """sensitivity: the floor of the last of the jitters, which is known already."""
    floating = _floating(problem)
    spreads = [*(_floor(*one, problem) for one in jitters[:-1]), sensitivity]
    nearby = [
        reduce(joint, (jitter.value_floor(prepared.value, {**floating, **place}) for prepared, jitter in jitters))
        for place in neighbours
    ]
    tensors = {path: joint(spreads[0].tensors[path], spreads[-1].tensors[path]) for path in problem.differentiated}
    return OwnFloors((reduce(joint, (found.value for found in spreads)), *nearby), tensors, by_node=False)


def _floating(problem: Problem) -> dict[str, Array]:
    return {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"}


def _floor(prepared: Prepared, jitter: Jitter, problem: Problem) -> NoiseFloor:
    run, floating = partial(_run, prepared, problem), _floating(problem)
    return jitter.floor(run, floating, run(floating))


def _run(prepared: Prepared, problem: Problem, leaves: Leaves) -> tuple[float, dict[str, Array]]:
    """The loss, and the gradients in float64; None, and what is misshapen, as zeros."""
    loss, given = prepared.value_and_gradient(leaves)
    return loss, {path: _or_zeros(given.get(path), x) for path, x in problem.primals.items()}


def _differencing(prepared: Prepared, problem: Problem, dtype: str, seed: int) -> Differencing:
    """Differences of the loss. Where it raises, as it has left its domain, it is NaN, and that difference is dropped.

    Its rounding error is measured, as a loss called in float64 may compute in less; it is at least u |loss|.
    """

    def value(leaves: Leaves) -> float:
        try:
            return prepared.value(leaves)
        except NoAnswerError:
            raise
        except Exception:  # noqa: BLE001  # a domain error may be any
            return math.nan

    rng, primals = np.random.default_rng([seed, 5]), problem.primals
    directions = {path: rng.standard_normal(x.shape) * typical(x) for path, x in primals.items()}
    noise = computational_noise(lambda t: value({path: x + t * directions[path] for path, x in primals.items()}))
    loss = prepared.value(primals)
    noise = max(noise, find_dtype(dtype).unit_roundoff * abs(loss))
    return Differencing(lambda path, moved: value({**primals, path: moved}), primals, loss, noise)
