"""The gradients that a choice of local slopes gives, and the choice that comes nearest to a given one.

A gradient is affine in the slopes of each unit at a kink. Every gradient here is a backward pass of the interpreter in
float64, with those slopes in place of the ops' own (`kinks.substitute`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.kinks import (
    Choice,
    Kinked,
    conventions,
    drawn,
    find_kinks,
    projected,
    substitute,
)
from gradwitness.evidence.noise_floor import TensorFloor, noise_floor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.perturbed_runs import ONE_ROUNDING, PerturbedRuns
from gradwitness.evidence.reference import Exact, exactly
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.ops.vocabulary import fused
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Fit", "LocalSlopes", "local_slopes"]

MATTERS = 32.0  # floors that a gradient moves by where it depends on slopes
DRAWS = 3  # random choices of slopes, to see what depends on them
COMBINATIONS = 64  # of one convention for each op
FITTED = 64  # slopes that are fitted one by one
ENTRIES = 2**22  # of the matrix of that fit
STEPS = 6  # linearisations of that fit
PENALTY = 1e4  # of weights that do not add up to 1, in the largest column of the fit


@dataclass(frozen=True)
class Fit:
    """The choice nearest to a gradient, slope by slope. decisive: so few slopes could not explain just anything."""

    choice: Choice
    decisive: bool


@dataclass(frozen=True)
class LocalSlopes:
    """A problem's units at kinks, in one dtype. `graph` is the one that `kinked` refers to."""

    interpreter: Interpreter
    graph: Graph
    leaves: Mapping[str, Array]
    wrt: tuple[str, ...]
    kinked: tuple[Kinked, ...]
    dtype: str
    seed: tuple[int, ...]

    @cached_property
    def start(self) -> Choice:
        """The vocabulary's own slopes."""
        return tuple(k.start for k in self.kinked)

    @cached_property
    def places(self) -> int:
        """How many slopes there are to choose."""
        return sum(k.unit.size for k in self.kinked)

    @cached_property
    def only_exact(self) -> LocalSlopes:
        """The same without the units that are within rounding of a kink in this dtype, but not in float64."""
        exact = (k.only(k.exact) for k in self.kinked)
        return replace(self, kinked=tuple(k for k in exact if k.unit.size))

    def gradient(self, choice: Choice) -> dict[str, Array]:
        """The gradient by leaf."""
        key = _key(choice)
        if key not in self._gradients:
            self._gradients[key] = self._evaluate(choice)
        return self._gradients[key]

    def floors(self, choice: Choice, arithmetic: Arithmetic) -> dict[str, TensorFloor]:
        """What rounding explains of it: units at a kink keep these slopes, however they are perturbed."""
        key = (_key(choice), arithmetic)
        if key not in self._floors:
            runs = PerturbedRuns(self.interpreter, self.graph, self.leaves, self.dtype, self.seed, arithmetic)
            found = noise_floor(runs, self.wrt, substitute(self.kinked, choice))
            zeros = {path: TensorFloor(0.0, np.zeros(self.leaves[path].shape)) for path in self.wrt}
            self._floors[key] = zeros | found.tensors
        return self._floors[key]

    @cached_property
    def influence(self) -> dict[str, Array]:
        """By how much each element of each gradient moved under random choices of all slopes."""
        rng = np.random.default_rng([*self.seed, 1])
        start = self.gradient(self.start)
        moved = {path: np.zeros(g.shape) for path, g in start.items()}
        for _ in range(DRAWS):
            found = self._evaluate(tuple(drawn(k, rng) for k in self.kinked))
            for path, g in found.items():
                moved[path] = np.maximum(moved[path], np.abs(g - start[path]))
        return moved

    def matters(self, path: str) -> bool:
        """Whether this leaf's gradient depends on the choice of slopes by more than rounding may explain."""
        if not self.kinked:
            return False
        moved, floor = self.influence[path], self.floors(self.start, ONE_ROUNDING)[path]
        return self._is_beyond(moved, floor)

    def _is_beyond(self, moved: Array, floor: TensorFloor) -> bool:
        """Whether a gradient moves by more than rounding may explain. Where all units are at a kink in float64 too,
        differences see it that fine, whatever the dtype on trial rounds."""
        is_exact = all(np.all(k.exact) for k in self.kinked)
        finest = find_dtype("float64" if is_exact else self.dtype).unit_roundoff
        floors = MATTERS * finest / find_dtype(self.dtype).unit_roundoff
        return norm(moved) > floors * floor.norm or bool(np.any(moved > floors * floor.elements))

    def base(self, path: str, reference: Exact) -> Exact:
        """This leaf's gradient at the vocabulary's own slopes: the reference if it takes them, else in float64."""
        own, floor = self.gradient(self.start)[path], self.floors(self.start, ONE_ROUNDING)[path]
        is_own = np.all(np.abs(reference.error_of(own)) <= MATTERS * floor.elements)
        return reference if is_own else exactly(own)

    def moving(self, path: str) -> list[Kinked]:
        """Those of the kinks that this leaf's gradient depends on."""
        rng, start = np.random.default_rng([*self.seed, 2]), self.gradient(self.start)[path]
        floor = self.floors(self.start, ONE_ROUNDING)[path]
        found = []
        for number, k in enumerate(self.kinked):
            choice = (*self.start[:number], drawn(k, rng), *self.start[number + 1 :])
            moved = np.abs(self.gradient(choice)[path] - start)
            if self._is_beyond(moved, floor):
                found.append(k)
        return found

    def can_fit(self, elements: int) -> bool:
        """Whether the slopes are few enough to be fitted one by one to a gradient of so many elements."""
        return self.places <= FITTED and self.places * elements <= ENTRIES

    def nearest(self, gradient: Array, path: str) -> Choice:
        """Of the choices with one convention for each op, that which comes nearest to this leaf's gradient."""
        return min(self._conventional, key=lambda choice: norm(self.gradient(choice)[path] - gradient))

    def fitted(self, gradient: Array, path: str, scale: Array, start: Choice) -> Fit | None:
        """The choice nearest to this leaf's gradient, slope by slope; None if they are too many.

        scale: what each element's error is measured in, positive. start: where to begin.
        """
        if not self.can_fit(gradient.size):
            return None
        choice = start
        for _ in range(STEPS):
            target = ((gradient - self._evaluate(choice)[path]) / scale).reshape(-1)
            choice, before = self._solved(choice, self._columns(choice, path) / scale.reshape(-1, 1), target), choice
            if np.allclose(np.concatenate(choice), np.concatenate(before), rtol=1e-15, atol=0):
                break
        return Fit(choice, self._is_decisive(self._columns(choice, path)))

    def _columns(self, choice: Choice, path: str) -> Array:
        """By how much this leaf's gradient moves with each slope, a column for each."""
        here = self._evaluate(choice)[path]
        columns = []
        for number, slopes in enumerate(choice):
            for place in range(slopes.size):
                moved = slopes.copy()
                moved[place] += 1.0
                columns.append(self._evaluate((*choice[:number], moved, *choice[number + 1 :]))[path] - here)
        return np.stack([column.reshape(-1) for column in columns], axis=1)

    def _solved(self, choice: Choice, columns: Array, target: Array) -> Choice:
        """The choice at which the columns add up to the target the best."""
        from scipy.optimize import lsq_linear

        flat = np.concatenate(choice)
        weight = PENALTY * (float(np.max(np.abs(columns), initial=0.0)) or 1.0)
        sums = self._sums * weight  # the weights of a tie go on adding up to 1: their changes to 0
        low = np.concatenate([k.low for k in self.kinked]) - flat
        high = np.concatenate([k.high for k in self.kinked]) - flat
        rows, values = np.vstack([columns, sums]), np.concatenate([target, np.zeros(len(sums))])
        bounds = (np.minimum(low, 0.0), np.maximum(high, 1e-300))
        change = lsq_linear(rows, values, bounds=bounds, method="bvls", tol=1e-15).x
        parts = np.split(flat + change, np.cumsum([s.size for s in choice])[:-1])
        return tuple(projected(k, part) for k, part in zip(self.kinked, parts, strict=True))

    @cached_property
    def _sums(self) -> Array:
        """A row for each tie, with ones at its places."""
        rows, offset = [], 0
        for k in self.kinked:
            for unit in np.unique(k.unit) if k.kind == "tie" else ():
                row = np.zeros(self.places)
                row[offset + np.flatnonzero(k.unit == unit)] = 1.0
                rows.append(row)
            offset += k.unit.size
        return np.array(rows).reshape(-1, self.places)

    def _is_decisive(self, columns: Array) -> bool:
        """Whether the slopes are half as many as the elements they move, or each element depends on one unit alone."""
        moves = np.abs(columns) > 1e-9 * np.max(np.abs(columns), initial=0.0)
        free = int(np.count_nonzero(moves.any(axis=0))) - len(self._sums)
        elements = int(np.count_nonzero(moves.any(axis=1)))
        owners = np.concatenate([k.unit + 2**40 * i for i, k in enumerate(self.kinked)])
        apart = all(len(np.unique(owners[row])) <= 1 for row in moves)
        return 2 * free <= elements or apart

    @cached_property
    def _conventional(self) -> list[Choice]:
        """Choices with one convention for each op."""
        named = [conventions(k) for k in self.kinked]
        ops = list(dict.fromkeys(k.node.op for k in self.kinked))
        names = {op: ["start", *self._names(op)] for op in ops}
        if np.prod([len(n) for n in names.values()]) <= COMBINATIONS:
            combined = [dict(zip(ops, pick, strict=True)) for pick in itertools.product(*names.values())]
        else:
            combined = [{op: name} for op in ops for name in names[op]]
        return [
            tuple(known.get(pick.get(k.node.op, ""), k.start) for k, known in zip(self.kinked, named, strict=True))
            for pick in combined
        ]

    def _names(self, op: str) -> list[str]:
        """The conventions that units of this op know."""
        return list(dict.fromkeys(name for k in self.kinked if k.node.op == op for name in conventions(k)))

    def _evaluate(self, choice: Choice) -> dict[str, Array]:
        """The gradient by leaf, not kept."""
        found = self.interpreter.backward(self._tape, self.wrt, on_cotangent=substitute(self.kinked, choice))
        return {path: np.zeros(self.leaves[path].shape) for path in self.wrt} | found

    @cached_property
    def _tape(self) -> Any:
        return self.interpreter.forward(self.graph, self.leaves)

    @cached_property
    def _gradients(self) -> dict[Any, dict[str, Array]]:
        return {}

    @cached_property
    def _floors(self) -> dict[Any, dict[str, TensorFloor]]:
        return {}


def local_slopes(interpreter: Interpreter, problem: Problem, dtype: str, *, seed: Sequence[int]) -> LocalSlopes:
    """The units of a problem that are at a kink, or within rounding of one in `dtype`; perhaps none."""
    wrt, graph = problem.differentiated, problem.graph.decomposed(keep=fused("kink"))
    found: list[Kinked] = []
    if any(_may_have_kinks(node) for node in graph.nodes):
        operands, spreads = PerturbedRuns(interpreter, graph, problem.leaves, dtype, seed).operands(_may_have_kinks)
        found = find_kinks(graph, wrt, operands, spreads, dtype)
    return LocalSlopes(interpreter, graph, problem.leaves, wrt, tuple(found), dtype, tuple(seed))


def _may_have_kinks(node: Node) -> bool:
    kink = find_op(node.op).kink if node.is_op else None
    return kink is not None and kink.kind != "smooth"


def _key(choice: Choice) -> tuple[bytes, ...]:
    return tuple(slopes.tobytes() for slopes in choice)
