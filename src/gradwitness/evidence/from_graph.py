"""What is known of a gradient whose loss is a graph: the reference, noise floors node by node, kinks, differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.beside import beside_kinks
from gradwitness.evidence.effort import Affordable, affordable_reference, reference_seconds
from gradwitness.evidence.finite_difference import UNIT_ROUNDOFF, Differencing, Probe
from gradwitness.evidence.held import held_branches
from gradwitness.evidence.local_slopes import LocalSlopes, local_slopes
from gradwitness.evidence.neighbours import Neighbours, draw_neighbours
from gradwitness.evidence.noise_floor import TensorFloor, noise_floor, tensor_floor
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.perturbed_runs import RUNS, PerturbedRuns
from gradwitness.evidence.prediction import Predictions, predictions
from gradwitness.evidence.probes import for_the_reader
from gradwitness.evidence.reach import node_reach
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.evidence.sight import Sight, Slack, look
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Floors", "FromGraph"]

Leaves = Mapping[str, Array]
FEW = 8  # perturbed runs, where only the loss is looked at


@dataclass(frozen=True)
class Floors:
    """What rounding explains of the loss, and of each gradient by path."""

    loss: TensorFloor
    tensors: Mapping[str, TensorFloor]


@dataclass(frozen=True, eq=False)
class FromGraph:
    """A graph as the referee of all who run it, at a point that `dtype` can hold. Everything is found out when it is
    asked for.

    arithmetic: how the interpreter's own float64 sums round. seconds: what a gradient in 256 bits may take; 0 to do
    without. given_neighbours: where the losses are compared, if it is known already.
    """

    interpreter: Interpreter
    problem: Problem
    dtype: str
    arithmetic: Arithmetic
    seed: int
    seconds: float
    given_neighbours: Neighbours | None = None
    _floors: dict[Arithmetic, Floors] = field(default_factory=dict)
    _nearby: dict[Arithmetic, tuple[TensorFloor, ...]] = field(default_factory=dict)
    _predictions: dict[Arithmetic, Predictions] = field(default_factory=dict)

    def in_dtype(self, dtype: str) -> FromGraph:
        """The same at the same point, where floors are those of another dtype."""
        if dtype == self.dtype:
            return self
        other = replace(self, dtype=dtype, _floors={}, _nearby={}, _predictions={})
        for name in ("tape", "loss", "_found", "affordable", "neighbours"):
            other.__dict__[name] = getattr(self, name)
        return other

    @property
    def paths(self) -> tuple[str, ...]:
        return self.problem.differentiated

    # The gradient

    @cached_property
    def tape(self) -> Any:
        return self.interpreter.forward(self.problem.graph, self.problem.leaves)

    @cached_property
    def loss(self) -> float:
        return self.interpreter.loss(self.tape)

    @cached_property
    def _found(self) -> dict[str, Array]:
        return self.interpreter.backward(self.tape, self.paths)

    @cached_property
    def reached(self) -> frozenset[str]:
        """The leaves from which a path leads to the loss."""
        return frozenset(self._found)

    @cached_property
    def affordable(self) -> Affordable:
        """What 256 bits say within the time given."""
        if not self.seconds:
            return Affordable()
        return affordable_reference(self.interpreter, self.problem, seconds=self.seconds, seed=(self.seed, 5))

    @property
    def extended(self) -> bool:
        """Whether there is a gradient in 256 bits."""
        return self.affordable.reference is not None

    @cached_property
    def _gradients(self) -> dict[str, Exact]:
        zeros = {path: np.zeros(x.shape) for path, x in self.problem.primals.items()}
        found = {path: exactly(self._found.get(path, zero)) for path, zero in zeros.items()}
        if self.affordable.reference is not None:
            exact = self.affordable.reference.gradients
            found |= {path: g for path, g in exact.items() if path not in self.affordable.refused}
        return found

    @cached_property
    def gradients(self) -> dict[str, Exact]:
        """The reference by path: hand-derived, in 256 bits or in float64; at kinks, by the vocabulary's own slopes."""
        bases = {path: self.slopes.only_exact.base(path, self._gradients[path]) for path in self._at_kinks}
        return self._gradients | bases

    @cached_property
    def scale(self) -> float:
        """The largest finite product of gradient and typical value of any leaf: beside infinity all others are 0."""
        products = (norm(g.high) * typical(self.problem.primals[path]) for path, g in self.gradients.items())
        return max((x for x in products if math.isfinite(x)), default=0.0)

    @cached_property
    def refused(self) -> dict[str, str]:
        """Why a leaf has no gradient in 256 bits."""
        return {path: why for path, why in self.affordable.refused.items() if self.kinked.get(path, why)}

    # Kinks

    @cached_property
    def slopes(self) -> LocalSlopes:
        """The units at kinks, if any."""
        return local_slopes(self.interpreter, self.problem, self.dtype, seed=(self.seed, 6))

    @cached_property
    def _at_kinks(self) -> tuple[str, ...]:
        return tuple(path for path in self.paths if path in self.reached and self.slopes.only_exact.matters(path))

    @cached_property
    def kinked(self) -> dict[str, str]:
        """The leaves whose gradient depends on the slopes chosen at kinks.

        Each comes with what speaks against the rules beside the kinks ("" if nothing does).
        """
        affordable = bool(self._at_kinks and self.seconds)
        affordable = affordable and reference_seconds(self.interpreter, self.problem) <= self.seconds
        return beside_kinks(
            self.interpreter,
            self.problem,
            self.across_kinks,
            self._at_kinks,
            seed=(self.seed, 7),
            extended=affordable,
        )

    # Neighbours

    @cached_property
    def neighbours(self) -> Neighbours:
        if self.given_neighbours is not None:
            return self.given_neighbours
        return draw_neighbours(self.problem.primals, self._is_usable, self.dtype, seed=(self.seed, 4))

    def _is_usable(self, neighbour: Leaves) -> bool:
        floor = self._loss_floor(neighbour, self.arithmetic, 3, runs=1)
        return bool(np.isfinite(self._loss_at(neighbour)) and np.isfinite(floor.norm))

    def _loss_at(self, moved: Leaves) -> float:
        leaves = {**self.problem.leaves, **moved}
        return self.interpreter.loss(self.interpreter.forward(self.problem.graph, leaves))

    @cached_property
    def losses(self) -> tuple[float, ...]:
        """At the point and at each neighbour."""
        exact = self.affordable.reference
        here = self.loss if exact is None else exact.loss
        return (here, *(self._loss_at(n) for n in self.neighbours))

    # Floors

    def floors_of(self, arithmetic: Arithmetic) -> Floors:
        """The floors of a candidate whose sums round with this arithmetic (`Capabilities.arithmetic`)."""
        if arithmetic not in self._floors:
            self._floors[arithmetic] = self._perturbed(arithmetic)
        return self._floors[arithmetic]

    def _perturbed(self, arithmetic: Arithmetic) -> Floors:
        leaves = self.problem.leaves
        found = noise_floor(self._runs(leaves, arithmetic, 1), self.paths)
        unreached = {path: TensorFloor(0.0, np.zeros(leaves[path].shape)) for path in self.paths}
        return Floors(found.value, unreached | found.tensors)

    def loss_floors_of(self, arithmetic: Arithmetic) -> tuple[TensorFloor, ...]:
        """The same of the loss, at the point and at each neighbour."""
        if arithmetic not in self._nearby:
            self._nearby[arithmetic] = tuple(self._loss_floor(n, arithmetic, 3) for n in self.neighbours)
        return (self.floors_of(arithmetic).loss, *self._nearby[arithmetic])

    def _loss_floor(self, moved: Leaves, arithmetic: Arithmetic, number: int, *, runs: int = FEW) -> TensorFloor:
        leaves = {**self.problem.leaves, **moved}
        return tensor_floor(self._runs(leaves, arithmetic, number, count=runs).losses())

    def _runs(self, leaves: Leaves, arithmetic: Arithmetic, number: int, *, count: int = RUNS) -> PerturbedRuns:
        graph, seed = self.problem.graph.decomposed(), (self.seed, number)
        return PerturbedRuns(self.interpreter, graph, leaves, self.dtype, seed, arithmetic, count)

    def predictions_of(self, arithmetic: Arithmetic) -> Predictions:
        """What a candidate of reduced precision gives."""
        if arithmetic not in self._predictions:
            self._predictions[arithmetic] = predictions(
                self.interpreter, self.problem, self.neighbours, self.dtype, arithmetic, seed=self.seed
            )
        return self._predictions[arithmetic]

    # Differences

    @cached_property
    def differencing(self) -> Differencing:
        """Of the loss in float64, with every branch as it is at the point."""
        return self._differencing(held_branches(self.problem.graph, lambda node: self.tape.steps[node.id]))

    @cached_property
    def with_decisions(self) -> Differencing:
        """The same, but for comparisons, which are made anew: stairs are seen as what they are."""
        steps = self.tape.steps
        return self._differencing(held_branches(self.problem.graph, lambda node: steps[node.id], decisions=False))

    @cached_property
    def across_kinks(self) -> Differencing:
        """Of the loss in float64 as it is: what one-sided derivatives are taken of."""
        return self._differencing(None)

    def _differencing(self, on_value: Any) -> Differencing:
        graph, leaves = self.problem.graph, self.problem.leaves

        def value(moved: Leaves) -> float:
            changed = [path for path in moved if path in graph.leaves]
            if not changed:
                return self.loss
            every = {**leaves, **moved}
            tape = self.interpreter.forward(graph, every, on_value=on_value, reuse=self.tape, changed=changed)
            return self.interpreter.loss(tape)

        return Differencing.of(value, self.problem.primals, UNIT_ROUNDOFF, (self.seed, 5))

    @property
    def narrowing(self) -> float:
        """How much finer float64 rounds."""
        return find_dtype("float64").unit_roundoff / find_dtype(self.dtype).unit_roundoff

    def sight_of(self, gradients: Mapping[str, Array], arithmetic: Arithmetic | None = None) -> dict[str, Sight]:
        """What differences see of these gradients, with what 256 bits say of derivatives along directions.

        arithmetic: that of the candidate which gave them in the dtype on trial; None for the graph's own, in float64.
        """
        slack = partial(self.slack, self.arithmetic if arithmetic is None else arithmetic, arithmetic is None)
        smooth = {path: g for path, g in gradients.items() if path not in self._at_kinks}
        others = {path: g for path, g in gradients.items() if path in self._at_kinks}
        seen = look(self.differencing, smooth, slack, seed=(self.seed, 2)) if smooth else {}
        seen |= look(self.across_kinks, others, slack, seed=(self.seed, 2)) if others else {}
        return {path: self.with_exact(path, gradients[path], sight, slack) for path, sight in seen.items()}

    def with_exact(self, path: str, gradient: Array, sight: Sight, slack: Slack) -> Sight:
        """The same, with the derivatives along directions in 256 bits; those beside a kink see one side of it."""
        if path in self._at_kinks:
            return sight
        for probe in self.affordable.probes.get(path, ()):
            assert probe.direction is not None
            explained, _ = slack({path: (np.arange(gradient.size), probe.direction.reshape(-1))})
            sight = sight.refuted_by(probe, gradient, explained)
        return sight

    def slack(
        self, arithmetic: Arithmetic, wide: bool, moved: Mapping[str, tuple[Array, Array]]
    ) -> tuple[float, float]:
        """What is rounded in a gradient, as a derivative along a direction; wide: in float64."""
        total = 0.0
        for path, (index, v) in moved.items():
            floor = self.floors_of(arithmetic).tensors[path]
            total = math.hypot(total, node_reach(floor).norm * norm(v * floor.elements.reshape(-1)[index]))
        total *= self.narrowing if wide else 1.0
        return total, total

    @cached_property
    def sights(self) -> dict[str, Sight]:
        """What differences see of the gradients in float64; of those in 256 bits they need see nothing."""
        finite = {path: self.gradients[path].high for path in self.unheard}
        finite = {path: g for path, g in finite.items() if np.all(np.isfinite(g))}
        return self.sight_of(finite) if finite else {}

    @cached_property
    def unheard(self) -> tuple[str, ...]:
        """The leaves, none at a kink, of whose gradients there is none in 256 bits."""
        return tuple(path for path in self.paths if not self.is_true(path) and path not in self._at_kinks)

    def is_true(self, path: str) -> bool:
        """Whether the reference is in 256 bits, validated by differences in as many."""
        return self.extended and path not in self.affordable.refuted

    @cached_property
    def probes(self) -> dict[str, tuple[Probe, ...]]:
        """Differences by single coordinates, for the reader."""
        finite = {path: g.high for path, g in self.gradients.items() if np.all(np.isfinite(g.high))}
        return for_the_reader(self.differencing, finite)

    def closer(self, path: str, indices: Sequence[int]) -> tuple[Probe, ...]:
        """Further differences, by single coordinates."""
        return self.differencing.by_coordinates(path, indices)
