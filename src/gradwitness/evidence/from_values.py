"""What is known of a gradient whose loss is known by its values alone: a user's own function.

Is the formula right? The gradient in float64 is held against differences of the loss in float64, at the point that the
dtype on trial can hold, whatever that dtype rounds. Is the rounding that of its dtype? The gradient in the dtype on
trial is held against the one in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness.complex_leaves import PARTS, whole
from gradwitness.dtypes import Array, find_dtype
from gradwitness.errors import NarrowerError, NoAnswerError, UnsupportedError
from gradwitness.evidence.finite_difference import Differencing, Probe
from gradwitness.evidence.jitter import Jitter
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.own_floors import (
    Answer,
    OwnFloors,
    by_inputs,
    by_node,
    loss_floor_by_inputs,
    loss_floor_by_node,
)
from gradwitness.evidence.probes import for_the_reader
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.evidence.sight import Sight, look
from gradwitness.problem import Problem
from gradwitness.protocol import Perturbing, Prepared

__all__ = ["SAMPLED", "FromValues", "with_largest_rounded"]

Leaves = Mapping[str, Array]
MATRIX_DIRECTIONS = 3
CONJUGATE = (
    "; it is right but for its sign: the gradient of {leaf} is the conjugate of what it should be (by a + ib torch's "
    "is dL/da + i dL/db, jax's dL/da - i dL/db)"
)
SYMMETRIC = (
    "; along symmetric directions it is right, as where an op takes a matrix for symmetric and reads one triangle of "
    "it: let the loss use ({path} + its transpose) / 2, and both agree"
)
SAMPLED = 64  # directions along which a distance from the derivative is measured


@dataclass(frozen=True, eq=False)
class FromValues:
    """A candidate's own loss as the referee of its own gradient. Everything is found out when it is asked for.

    narrow: the candidate in the dtype on trial. wide: the same in float64, or None if it does not run there; where
    float64 is on trial, both are one. finest_answer: what `wide` gave at the point, or `narrow` if there is none.
    problem: at the point, which `dtype` can hold. arithmetic: how the backend's sums round in that dtype.
    """

    narrow: Prepared
    wide: Prepared | None
    finest_answer: Answer
    problem: Problem
    dtype: str
    arithmetic: Arithmetic
    seed: int

    @property
    def finest(self) -> Prepared:
        return self.narrow if self.wide is None else self.wide

    @property
    def fd_dtype(self) -> str:
        """The dtype in which differences are taken."""
        return self.dtype if self.wide is None else "float64"

    @property
    def is_narrowed(self) -> bool:
        """Whether the gradient on trial is held against one in float64."""
        return self.wide is not None and self.dtype != "float64"

    @cached_property
    def gradients(self) -> dict[str, Array]:
        """The finest gradients in float64: None as zeros; not those that are misshapen or not finite."""
        found = {}
        for path, x in self.problem.primals.items():
            given = self.finest_answer[1].get(path)
            g = np.zeros(x.shape) if given is None else np.asarray(given, np.float64)
            if g.shape == x.shape and np.all(np.isfinite(g)):
                found[path] = g
        return found

    def truth(self, path: str) -> Exact:
        """What the gradient in the dtype on trial is held against; NaN where there is none."""
        found = self.gradients.get(path)
        return exactly(np.full(self.problem.primals[path].shape, np.nan) if found is None else found)

    @cached_property
    def scale(self) -> float:
        """The largest product of gradient and typical value of any leaf."""
        primals = self.problem.primals
        return max((norm(g) * typical(primals[path]) for path, g in self.gradients.items()), default=0.0)

    # Differences

    @cached_property
    def sights(self) -> dict[str, Sight]:
        """What differences see of the finest gradients, by path."""
        if not self.gradients:
            return {}
        gradients = {path: self._without_named(path, g) for path, g in self.gradients.items()}
        found = look(self.differencing, gradients, self._slack, seed=(self.seed, 2))
        probes = for_the_reader(self.differencing, gradients)
        return {path: sight.with_probes(probes[path]) for path, sight in found.items()}

    def _without_named(self, path: str, gradient: Array) -> Array:
        """NaN, which no difference is held against, for elements that are meant to differ."""
        intention = self.problem.intentions.get(path)
        if intention is None or intention.elements is None:
            return gradient
        others = gradient.copy()
        others[intention.elements] = np.nan
        return others

    def distance(self, path: str) -> tuple[float, float, float]:
        """(how far the finest gradient of a leaf is from its derivative, a bound on the error of that, its own norm).

        A small leaf is measured by every coordinate, a larger one along Gaussian directions.
        """
        x, g = self.problem.primals[path], self.gradients[path]
        unit, rng = typical(x), np.random.default_rng([self.seed, 11])
        one_by_one = x.size <= SAMPLED
        directions = np.eye(x.size).reshape(-1, *x.shape) if one_by_one else rng.standard_normal((SAMPLED, *x.shape))
        slopes = [self.differencing.line(path, unit * v, slope_by=g).slope() for v in directions]
        apart = np.array([np.vdot(g, v) - s.value / unit for v, s in zip(directions, slopes, strict=True)])
        bounds = np.array([s.bound / unit for s in slopes])
        scale = 1.0 if one_by_one else SAMPLED**-0.5
        return scale * norm(apart), scale * norm(bounds), norm(g)

    def closer(self, path: str, indices: Sequence[int]) -> tuple[Probe, ...]:
        """Further differences, by single coordinates."""
        return self.differencing.by_coordinates(path, indices)

    @cached_property
    def differencing(self) -> Differencing:
        """Of the finest loss. Where it raises, as it has left its domain, it is NaN."""
        roundoff = find_dtype(self.fd_dtype).unit_roundoff
        return Differencing.of(self._value, self.problem.primals, roundoff, (self.seed, 5))

    def _value(self, moved: Leaves) -> float:
        if not moved:
            return self.finest.value(self.problem.primals)
        try:
            return self.finest.value({**self.problem.primals, **moved})
        except NoAnswerError:
            raise
        except Exception:  # noqa: BLE001  # a domain error may be any
            return math.nan

    def _slack(self, moved: Mapping[str, tuple[Array, Array]]) -> tuple[float, float]:
        total, most = 0.0, 0.0
        for path, (index, v) in moved.items():
            floor = self.finest_floors.tensors[path]
            reach, part = self.finest_floors.reach(floor), norm(v * floor.elements.reshape(-1)[index])
            total, most = math.hypot(total, reach.norm * part), math.hypot(most, reach.beyond_doubt.norm * part)
        return total, most

    def hint(self, path: str) -> str:
        """What a gradient that differences refute may be in its place: by its sign, or by how it lies in a square
        matrix."""
        x, g = self.problem.primals[path], self.gradients.get(path)
        is_square = x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1
        is_imaginary = whole(path, self.problem.complex) != path and path.endswith(PARTS[1])
        if g is None or not (is_square or is_imaginary):
            return ""
        rng = np.random.default_rng([self.seed, 12])
        directions = typical(x) * rng.standard_normal((MATRIX_DIRECTIONS, *x.shape))
        if any(self._is_along(path, g, v) for v in directions):  # what is off is too little to be told apart
            return ""
        if is_imaginary and all(self._is_along(path, -g, v) for v in directions):
            return CONJUGATE.format(leaf=whole(path, self.problem.complex))
        if not is_square:
            return ""
        if all(self._is_along(path, _transposed(g), v) for v in directions):
            return "; it is right but for being transposed"
        if all(self._is_along(path, g, v + _transposed(v)) for v in directions):
            return SYMMETRIC.format(path=path)
        return ""

    def _is_along(self, path: str, gradient: Array, v: Array) -> bool:
        """Whether a gradient has the derivative along a direction, as far as differences tell a hundredth of it."""
        line = self.differencing.line(path, v, slope_by=gradient)
        slope, claim = line.slope(), float(np.vdot(gradient, v))
        slack, _ = self._slack({path: (np.arange(v.size), v.reshape(-1))})
        return slope.bound + slack <= 1e-2 * line.size and abs(slope.value - claim) <= slope.bound + slack

    # Floors

    @cached_property
    def finest_floors(self) -> OwnFloors:
        """What rounding explains of the finest gradients, in the dtype that they are in."""
        if self.computes_in_less:
            return by_inputs([self._float32_inside], self.problem)
        return self._node_floors(self.fd_dtype) or self._input_floors(self.fd_dtype)

    @cached_property
    def computes_in_less(self) -> bool:
        """Whether the loss, called in float64, computes in a narrower dtype inside: one perturbed run finds out."""
        if not isinstance(self.wide, Perturbing):
            return False
        errors = RoundingErrors.of("float64", self.arithmetic)
        try:
            for _ in self.wide.perturbed(self.problem.primals, errors, runs=1, seed=(self.seed, 1)):
                pass
        except NarrowerError:
            return True
        except UnsupportedError:
            return False
        return False

    @cached_property
    def floors(self) -> OwnFloors:
        """What rounding explains in the dtype on trial. In float64, where differences judge, the inputs will do."""
        by_nodes = self._node_floors(self.dtype) if self.is_narrowed else None
        return by_nodes or self.floors_by_inputs

    @cached_property
    def floors_by_inputs(self) -> OwnFloors:
        """The same by jittered inputs alone."""
        return self._input_floors(self.dtype)

    @cached_property
    def peer_floors(self) -> OwnFloors:
        """What jittered inputs explain of the finest gradients, in their own dtype and in float64."""
        paths, seed = self.problem.differentiated, (self.seed, 1)
        jitters = [(self.finest, Jitter(self.fd_dtype, True, paths, seed))]
        if self.wide is not None:
            jitters.append((self.wide, Jitter("float64", False, paths, seed)))
        if self.computes_in_less:
            jitters.append(self._float32_inside)
        return by_inputs(jitters, self.problem)

    def own_noise(self, path: str) -> float:
        """What the arithmetic of the finest gradient rounds in it, by norm: by so much jittered inputs move it."""
        floor = self._own_arithmetic.tensors[path]
        return self._own_arithmetic.reach(floor).norm * floor.norm

    @cached_property
    def _own_arithmetic(self) -> OwnFloors:
        jitter = Jitter(self.fd_dtype, True, self.problem.differentiated, (self.seed, 1))
        return by_inputs([(self.finest, jitter)], self.problem)

    def loss_floor(self, place: Leaves, loss: float) -> TensorFloor:
        """Of the loss in the dtype on trial, with some leaves elsewhere."""
        place, jitters = {**self.problem.primals, **place}, self._jitters(self.dtype)
        if self.wide is not None:
            errors = RoundingErrors.of(self.dtype, self.arithmetic)
            exact = self.wide.value(place) if self.is_narrowed else loss
            found = loss_floor_by_node(self.wide, place, exact, errors, (self.seed, 3))
            if found is not None:
                return found
        if self.computes_in_less:
            jitters = [*jitters, self._float32_inside]
        return loss_floor_by_inputs(jitters, self.problem, place)

    @property
    def _float32_inside(self) -> tuple[Prepared, Jitter]:
        """How a loss that is called in float64 rounds, where it computes in less inside: as float32 at best."""
        return self.finest, Jitter("float32", False, self.problem.differentiated, (self.seed, 1))

    def _node_floors(self, dtype: str) -> OwnFloors | None:
        if self.wide is None:
            return None
        errors = RoundingErrors.of(dtype, self.arithmetic)
        return by_node(self.wide, self.problem, self.finest_answer, errors, (self.seed, 1))

    def _input_floors(self, dtype: str) -> OwnFloors:
        return by_inputs(self._jitters(dtype), self.problem)

    def _jitters(self, dtype: str) -> list[tuple[Prepared, Jitter]]:
        paths, seed = self.problem.differentiated, (self.seed, 1)
        wide = [(self.wide, Jitter(dtype, False, paths, seed))] if self.wide is not None else []
        narrow = [(self.narrow, Jitter(dtype, True, paths, seed))] if dtype == self.dtype != "float64" else []
        return [*narrow, *wide]


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def with_largest_rounded(floor: TensorFloor, gradient: Array, dtype: str) -> TensorFloor:
    """The floor, with a rounding in `dtype` of the largest element added to each element.

    p - 1 for a softmax p near 1 loses its digits in every run alike, so that no spread shows it.
    """
    rounded = find_dtype(dtype).unit_roundoff * float(np.max(np.abs(gradient), initial=0.0))
    return TensorFloor(max(floor.norm, rounded), np.hypot(floor.elements, rounded), floor.runs)
