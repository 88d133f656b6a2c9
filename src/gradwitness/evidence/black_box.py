"""What can be known of a gradient whose loss is known by its values alone: a user's own function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.computational_noise import computational_noise
from gradwitness.evidence.finite_difference import Differences, Differencing
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.problem import Problem
from gradwitness.protocol import Prepared

__all__ = ["OwnEvidence", "own_evidence"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]


NOISE = 10.0  # an element of up to so many floors of float64 is nothing but noise


@dataclass(frozen=True)
class OwnEvidence:
    """What a candidate's own loss says about its gradient at one point.

    losses: the floors of the loss at the point and at each neighbour; floors: those of the gradients.
    differences: by each leaf, which `differencing` can extend. dtype: that in which they were taken.
    """

    losses: tuple[float, ...]
    floors: Mapping[str, TensorFloor]
    differences: Mapping[str, Differences]
    differencing: Differencing
    dtype: str


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

    The problem is at a point that `dtype` can hold.
    """
    losses, floors = _floors(narrow, wide, problem, dtype, neighbours, seed)
    finest, taken_in = (narrow, dtype) if wide is None else (wide, "float64")

    def loss_of(path: str, moved: Array) -> float:
        return finest.value({**problem.primals, path: moved})

    loss = finest.value(problem.primals)
    differencing = Differencing(loss_of, problem.primals, loss, _noise(finest, problem, loss, taken_in, seed))
    return OwnEvidence(losses, floors, differencing.by_every_leaf(seed=(seed, 2)), differencing, taken_in)


def _floors(
    narrow: Prepared, wide: Prepared | None, problem: Problem, dtype: str, neighbours: Sequence[Leaves], seed: int
) -> tuple[tuple[float, ...], dict[str, TensorFloor]]:
    """Of the losses, at the point and at each neighbour, and of the gradients."""
    floating = {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f"}
    places = [floating, *({**floating, **neighbour} for neighbour in neighbours)]
    inside = Jitter(dtype, inside=True, seed=(seed, 1))
    own = inside.floor(partial(_run, narrow, problem), floating)
    losses = [inside.value_floor(narrow.value, place) for place in places]
    if wide is None:
        return tuple(losses), own.tensors
    outside = Jitter(dtype, inside=False, seed=(seed, 1))
    found = outside.floor(partial(_run, wide, problem), floating)
    losses = [math.hypot(x, outside.value_floor(wide.value, place)) for x, place in zip(losses, places, strict=True)]
    finest = own if dtype == "float64" else Jitter("float64", inside=True, seed=(seed, 1)).floor(
        partial(_run, wide, problem), floating
    )
    gradients = _run(wide, problem, problem.primals)[1]
    noise = {path: np.abs(g) <= NOISE * finest.tensors[path].elements for path, g in gradients.items()}
    return tuple(losses), {path: _merged(found.tensors[path], own.tensors[path], noise[path]) for path in gradients}


def _merged(floor: TensorFloor, own: TensorFloor, is_noise: Array) -> TensorFloor:
    """The floor, with the dtype's own where float64 computes nothing but noise."""
    elements = np.where(is_noise, np.hypot(floor.elements, own.elements), floor.elements)
    return replace(floor, norm=max(floor.norm, norm(elements)), elements=elements)


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
