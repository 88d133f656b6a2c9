"""What passes by each stage, forward and backward, on each backend: the sizes of signals, cotangents and gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradwitness import registry
from gradwitness.arithmetic import Arithmetic
from gradwitness.diagnosis.stages import Stage
from gradwitness.diagnosis.taps import Tap, tapped
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import node_reach
from gradwitness.problem import Candidate, Problem
from gradwitness.run.failing import first_lines
from gradwitness.run.preparing import prepare
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness.verdict.checks import compare

__all__ = ["Flow", "Passing", "Tapped"]


@dataclass(frozen=True)
class Passing:
    """What passes by one stage.

    signal: the root mean square of what it gives. cotangent: the norm of the derivative of the loss by that.
    gradient: the norm of the gradients of its parameters, of all uses of its layer together.
    """

    signal: float
    cotangent: float
    gradient: float


@dataclass(frozen=True)
class Flow:
    """All stages on one backend.

    used: how much of what rounding may reach the worst of its arrays is off the reference, as far as that is finite; at
    most 1 where both are the same. why: why there is none.
    """

    backend: str
    passing: tuple[Passing, ...] = ()
    used: float = 0.0
    why: str = ""

    @property
    def is_other(self) -> bool:
        """Whether it is not the reference's, beyond rounding."""
        return not self.why and self.used > 1


@dataclass(frozen=True, eq=False)
class Tapped:
    """A network whose stages are tapped, and what is known of it. stages: where."""

    stages: Sequence[Stage]
    known: FromGraph

    @classmethod
    def of(cls, problem: Problem, stages: Sequence[Stage], dtype: str, settings: Settings) -> Tapped:
        nodes = {stage.output.id: stage.output for stage in stages}
        return cls(stages, graph_referee(tapped(problem, list(nodes.values())), dtype, settings))

    @cached_property
    def exact(self) -> Mapping[str, Array]:
        """The reference by path: gradients and taps, hand-derived in float64."""
        return {path: exact.high for path, exact in self.known.gradients.items()}

    @cached_property
    def passing(self) -> tuple[Passing, ...]:
        """The reference of each stage."""
        return tuple(_passing(stage, self.exact) for stage in self.stages)

    def floors(self, arithmetic: Arithmetic) -> Mapping[str, TensorFloor]:
        """What rounding explains of each gradient and tap."""
        return self.known.floors_of(arithmetic).tensors

    def flow(self, backend: str, device: str, settings: Settings) -> Flow:
        """The same on a backend."""
        try:
            given = self._given(backend, device, settings)
        except GradwitnessError as error:
            return Flow(backend, why=str(error))
        except Exception as error:  # noqa: BLE001  # one backend's failure never costs the others' flow
            return Flow(backend, why=first_lines(error))
        found = {path: _array(given.get(path), x) for path, x in self.exact.items()}
        floors = self.floors(registry.backend(backend).capabilities.arithmetic(self.known.dtype))
        used = [_used(found[path], x, floors[path]) for path, x in self.exact.items()]
        return Flow(backend, tuple(_passing(stage, found) for stage in self.stages), max(used, default=0.0))

    def _given(self, backend: str, device: str, settings: Settings) -> Mapping[str, Array | None]:
        problem = self.known.problem
        with registry.installed(backend).precision(settings.precision):
            prepared = prepare(Candidate(backend), problem, self.known.dtype, device, settings)
            return prepared.value_and_gradient(problem.primals)[1]


def _used(given: Array, exact: Array, floor: TensorFloor) -> float:
    """How much of what rounding may reach an array is off; of a reference that is not finite nothing can be said."""
    if not np.all(np.isfinite(exact)):
        return 0.0
    if not np.all(np.isfinite(given)):
        return math.inf
    return compare(given - exact, floor, node_reach(floor)).ratio


def _array(given: Array | None, like: Array) -> Array:
    return np.zeros(like.shape) if given is None else given.astype(np.float64)


def _passing(stage: Stage, found: Mapping[str, Array]) -> Passing:
    tap = Tap.at(stage.output)
    value = found[tap.value]
    return Passing(
        signal=norm(value) / max(value.size, 1) ** 0.5,
        cotangent=norm(found[tap.cotangent]),
        gradient=float(np.hypot.reduce([norm(found[path]) for path in stage.leaves])),
    )
