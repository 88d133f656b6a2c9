"""What rounding alone can explain: Monte Carlo arithmetic at the level of nodes.

Every op's value and every cotangent of the decomposed graph is perturbed, in float64, as strongly as
the candidate's dtype would round it; the spread of the gradients over several such runs is the floor.
Parker, "Monte Carlo Arithmetic", UCLA CSD-970002 (1997); Denis et al., "Verificarlo", ARITH 23 (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic, Sums
from gradwitness.dtypes import find_dtype
from gradwitness.evidence.norms import norm, rms
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.ops.vocabulary import ROUNDED, Rounding
from gradwitness.protocol import Interpreter

__all__ = [
    "AMPLIFICATION",
    "NoiseFloor",
    "TensorFloor",
    "joint",
    "noise_floor",
    "operand_spreads",
    "scaled",
    "spread",
    "tensor_floor",
    "value_floor",
]

Array = np.ndarray[Any, Any]
OnCotangent = Callable[[Node, Any, Any, Sequence[Any]], Sequence[Any]]
ONE_ROUNDING = Arithmetic()
RUNS = 16  # independent perturbed runs: the degrees of freedom of every spread
SHRINKAGE = 4  # a row's mean square counts for as much as this many runs of each of its elements
AMPLIFICATION = 2.0**20  # at u itself float64 would round the perturbation away


@dataclass(frozen=True)
class TensorFloor:
    """The floor of one gradient: `norm`, the rms norm of its deviations, and `elements`, its shape, their rms."""

    norm: float
    elements: Array
    runs: int = RUNS


def joint(one: TensorFloor, other: TensorFloor) -> TensorFloor:
    """What two independent causes explain together."""
    return TensorFloor(float(np.hypot(one.norm, other.norm)), np.hypot(one.elements, other.elements), one.runs)


def scaled(floor: TensorFloor, factor: float) -> TensorFloor:
    """The same of a rounding so many times as large."""
    return TensorFloor(factor * floor.norm, factor * floor.elements, floor.runs)


@dataclass(frozen=True)
class NoiseFloor:
    """The floor of the loss, and of each gradient by path, in one dtype at one point."""

    value: float
    tensors: dict[str, TensorFloor]


def noise_floor(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    runs: int = RUNS,
) -> NoiseFloor:
    """The spread of loss and gradients when every node of `graph.decomposed()` rounds as in `dtype`.

    arithmetic: how sums round in this dtype, by op (`Capabilities.arithmetic`).
    """
    return spread(interpreter, graph.decomposed(), leaves, wrt, dtype, seed=seed, arithmetic=arithmetic, runs=runs)


def spread(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    runs: int = RUNS,
    on_cotangent: OnCotangent | None = None,
) -> NoiseFloor:
    """The same of a graph as it is: a fused op rounds once. `on_cotangent` may replace what an op sends, unrounded."""
    tape = interpreter.forward(graph, leaves)
    loss, gradients = interpreter.loss(tape), interpreter.backward(tape, wrt, on_cotangent=on_cotangent)
    values: list[float] = []
    deviations: dict[str, list[Array]] = {path: [] for path in gradients}
    for run in range(runs):
        rounding = _Perturbation(dtype, arithmetic, np.random.default_rng([*seed, run]))
        tape = interpreter.forward(graph, leaves, on_value=rounding.on_value)
        values.append(interpreter.loss(tape) - loss)
        for path, g in interpreter.backward(tape, wrt, on_cotangent=_then(on_cotangent, rounding)).items():
            deviations[path].append((g - gradients[path]) / rounding.amplification)
    of_loss = float(rms(np.array(values))) / _amplification(dtype)
    return NoiseFloor(of_loss, {path: tensor_floor(np.array(runs)) for path, runs in deviations.items()})


def _then(first: OnCotangent | None, rounding: _Perturbation) -> OnCotangent:
    if first is None:
        return rounding.on_cotangent

    def both(node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        return rounding.on_cotangent(node, step, cotangent, first(node, step, cotangent, sent))

    return both


def operand_spreads(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    dtype: str,
    chosen: Callable[[Node], bool],
    *,
    seed: Sequence[int],
    runs: int = RUNS,
) -> tuple[dict[int, Sequence[Any]], dict[int, Sequence[Any]]]:
    """What the chosen nodes of a graph are given, and by how much rounding in `dtype` moves it: by node id."""

    def operands(round_: Callable[[Node, Any], Any]) -> dict[int, Sequence[Any]]:
        given: dict[int, Sequence[Any]] = {}

        def on_value(node: Node, step: Any) -> Any:
            if chosen(node):
                given[node.id] = step.operands
            return round_(node, step)

        interpreter.forward(graph, leaves, on_value=on_value)
        return given

    exact = operands(lambda node, step: step.output)
    squares: dict[int, list[Any]] = {key: [0.0] * len(given) for key, given in exact.items()}
    for run in range(runs):
        rounding = _Perturbation(dtype, ONE_ROUNDING, np.random.default_rng([*seed, run]))
        for key, given in operands(rounding.on_value).items():
            moved = zip(squares[key], given, exact[key], strict=True)
            squares[key] = [total + np.square(_moved(np.asarray(x), true)) for total, x, true in moved]
    scale = _amplification(dtype) * np.sqrt(runs)
    return exact, {key: [np.sqrt(total) / scale for total in totals] for key, totals in squares.items()}


def value_floor(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    runs: int = RUNS,
) -> float:
    """The spread of the loss alone: forward passes only."""
    elementary = graph.decomposed()
    loss = interpreter.loss(interpreter.forward(elementary, leaves))
    values = []
    for run in range(runs):
        rounding = _Perturbation(dtype, arithmetic, np.random.default_rng([*seed, run]))
        values.append(interpreter.loss(interpreter.forward(elementary, leaves, on_value=rounding.on_value)) - loss)
    return float(rms(np.array(values))) / _amplification(dtype)


def tensor_floor(deviations: Array) -> TensorFloor:
    """Each element's spread, shrunk towards its row's: a small sample alone would call too many elements quiet.

    A vector has no rows, and its elements may differ in scale, so there each stands for itself.
    """
    runs, spread = len(deviations), rms(deviations)
    elements, largest = spread, float(np.max(spread, initial=0.0))
    if spread.ndim > 1 and 0 < largest < np.inf:
        squares = (spread / largest) ** 2
        row = np.mean(squares, axis=tuple(range(1, spread.ndim)), keepdims=True)
        elements = largest * np.sqrt((runs * squares + SHRINKAGE * row) / (runs + SHRINKAGE))
    return TensorFloor(norm(spread), elements, runs)


def _amplification(dtype: str) -> float:
    return AMPLIFICATION if dtype == "float64" else 1.0


class _Perturbation:
    """One run's rounding errors: Gaussian, with the standard deviation that `Rounding` names for each op."""

    def __init__(self, dtype: str, arithmetic: Arithmetic, rng: np.random.Generator) -> None:
        self.amplification = _amplification(dtype)
        found = find_dtype(dtype)
        self.roundoff = found.unit_roundoff * self.amplification
        self.tiny = found.smallest_normal if arithmetic.flushes else found.smallest_subnormal
        self.arithmetic = arithmetic
        self.rng = rng

    def on_value(self, node: Node, step: Any) -> Any:
        kind = _rounding(node).value
        if kind == "exact":
            return step.output
        if kind == "rounded":
            return self._perturb(step.output)
        moment = step.with_operands([_square(o) for o in step.operands]).output
        growth: Any = 1.0
        if sums := self._sums(node, kind):
            growth = sums.growth(step.with_operands([_one(o) for o in step.operands]).output)
        return self._perturb(step.output, moment, growth)

    def on_cotangent(self, node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        kind = _rounding(node).cotangent
        if kind == "exact":
            return sent
        if kind == "rounded":
            return [None if s is None else self._perturb(s) for s in sent]
        moments = self._pulled(step, _square, cotangent)
        growths: Sequence[Any] = [1.0] * len(sent)
        if sums := self._sums(node, kind):
            growths = [None if k is None else sums.growth(k) for k in self._pulled(step, _one, cotangent)]
        parts = zip(sent, moments, growths, strict=True)
        return [None if s is None else self._perturb(s, m, c) for s, m, c in parts]

    def _sums(self, node: Node, kind: str) -> Sums | None:
        return self.arithmetic.sums_of("sum" if kind == "sum" else node.op)

    def _pulled(self, step: Any, change: Callable[[Any], Any], cotangent: Any) -> Sequence[Any]:
        """The op's own vjp with operands and cotangent squared, or replaced by ones."""
        changed = step.with_operands([change(o) for o in step.operands])
        changed.needs = step.needs
        pulled: Sequence[Any] = changed.pull(change(cotangent))
        return pulled

    def _perturb(self, x: Any, moment: Any = None, growth: Any = 1.0) -> Any:
        # a moment is negative only by a wrong vjp
        size = np.abs(x) if moment is None else growth * np.sqrt(x * x + np.abs(moment))
        # what is 0 without any rounding (a sum of zeros, a masked value) is 0 in every format
        deviation = self.roundoff * size + np.where(size > 0, self.tiny, 0.0)
        # an infinity, as of a mask, is exact
        return x + np.where(np.isinf(x), 0.0, deviation) * self.rng.standard_normal(np.shape(x))


def _rounding(node: Node) -> Rounding:
    """A fused op that was kept whole counts as rounded once."""
    return find_op(node.op).rounding or ROUNDED


def _moved(x: Array, true: Array) -> Array:
    """How far a value has moved; an infinity, as of a mask, stays."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(true), 0.0, x - true)


def _is_float(x: Any) -> bool:
    return isinstance(x, float) or (x is not None and getattr(x, "dtype", np.dtype(int)).kind == "f")


def _square(x: Any) -> Any:
    """The square of a float; indices, masks and absent operands as they are."""
    return x * x if _is_float(x) else x


def _one(x: Any) -> Any:
    """Ones in place of floats: a sum of them counts its terms."""
    return np.ones_like(x) if _is_float(x) else x
