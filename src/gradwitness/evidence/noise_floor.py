"""What rounding alone can explain: Monte Carlo arithmetic at the level of nodes.

Every op's value and every cotangent of the decomposed graph is perturbed, in float64, as strongly as
the candidate's dtype would round it; the spread of the gradients over several such runs is the floor.
Parker, "Monte Carlo Arithmetic", UCLA CSD-970002 (1997); Denis et al., "Verificarlo", ARITH 23 (2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic, RoundingErrors, Sums
from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.norms import norm, rms
from gradwitness.evidence.products import products
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.ops.vocabulary import EXACT, ROUNDED, Rounding
from gradwitness.protocol import Interpreter

__all__ = [
    "NoiseFloor",
    "Spread",
    "TensorFloor",
    "contractions",
    "deviations",
    "joint",
    "multiplies_results",
    "noise_floor",
    "operand_spreads",
    "perturbed_runs",
    "spread",
    "tensor_floor",
    "value_deviations",
    "value_floor",
]

OnCotangent = Callable[[Node, Any, Any, Sequence[Any]], Sequence[Any]]
Result = tuple[float, dict[str, Array]]  # the loss, and the gradients by path
ONE_ROUNDING = Arithmetic()
RUNS = 16  # independent perturbed runs: the degrees of freedom of every spread
FACTORS = 2  # of the operands of a contraction; a third, a bias, is added
ALIKE = 0.97  # the part of a spread that is the same in all runs: of 16 by chance, it is a quarter
SHRINKAGE = 4  # a row's mean square counts for as much as this many runs of each of its elements


@dataclass(frozen=True)
class TensorFloor:
    """The floor of one gradient: `norm`, the rms norm of its deviations, and `elements`, its shape, their rms."""

    norm: float
    elements: Array
    runs: int = RUNS


def joint(one: TensorFloor, other: TensorFloor) -> TensorFloor:
    """What two independent causes explain together."""
    return TensorFloor(float(np.hypot(one.norm, other.norm)), np.hypot(one.elements, other.elements), one.runs)


@dataclass(frozen=True)
class NoiseFloor:
    """The floor of the loss (a tensor of no axes), and of each gradient by path, in one dtype at one point."""

    value: TensorFloor
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
) -> NoiseFloor:
    """The spread of loss and gradients when every node of `graph.decomposed()` rounds as in `dtype`.

    arithmetic: how sums round in this dtype, by op (`Capabilities.arithmetic`).
    """
    return spread(interpreter, graph.decomposed(), leaves, wrt, dtype, seed=seed, arithmetic=arithmetic)


def spread(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    on_cotangent: OnCotangent = lambda node, step, cotangent, sent: sent,
) -> NoiseFloor:
    """The same of a graph as it is: a fused op rounds once. `on_cotangent` may replace what an op sends, unrounded."""
    values: list[float] = []
    totals: dict[str, Array] = {}  # of the squares, by hypot: of a large network no run is kept
    for value, moved in _deviated(interpreter, graph, leaves, wrt, dtype, seed, arithmetic, on_cotangent):
        values.append(value)
        for path, found in moved.items():
            totals[path] = np.hypot(totals[path], found) if path in totals else np.abs(found)
    floors = {path: _shrunk(total / np.sqrt(RUNS), RUNS) for path, total in totals.items()}
    return NoiseFloor(tensor_floor(np.array(values)), floors)


def deviations(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    on_cotangent: OnCotangent = lambda node, step, cotangent, sent: sent,
) -> tuple[Array, dict[str, Array]]:
    """How far each run moves the loss, of shape (RUNS,), and the gradients by path, (RUNS, *shape)."""
    values: list[float] = []
    moved: dict[str, list[Array]] = {}
    for value, found in _deviated(interpreter, graph, leaves, wrt, dtype, seed, arithmetic, on_cotangent):
        values.append(value)
        for path, g in found.items():
            moved.setdefault(path, []).append(g)
    return np.array(values), {path: np.array(found) for path, found in moved.items()}


def _deviated(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    seed: Sequence[int],
    arithmetic: Arithmetic,
    on_cotangent: OnCotangent,
) -> Iterator[tuple[float, dict[str, Array]]]:
    """How far the loss, and the gradients by path, move in one run after another."""
    (loss, gradients), runs, amplification = perturbed_runs(
        interpreter, graph, leaves, wrt, dtype, seed=seed, arithmetic=arithmetic, on_cotangent=on_cotangent
    )
    for value, found in runs:
        yield (value - loss) / amplification, {path: (g - gradients[path]) / amplification for path, g in found.items()}


def perturbed_runs(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    wrt: Sequence[str],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    on_cotangent: OnCotangent = lambda node, step, cotangent, sent: sent,
) -> tuple[Result, Iterator[Result], float]:
    """(loss and gradients unperturbed, the same of one run after another, by how much these move too far)."""
    errors = _Errors(dtype, arithmetic, graph)

    def answer(hooks: _Errors | _Run) -> Result:
        tape = interpreter.forward(graph, leaves, on_value=hooks.on_value)
        then = _then(on_cotangent, hooks.on_cotangent)
        return interpreter.loss(tape), interpreter.backward(tape, wrt, on_cotangent=then, on_sum=hooks.on_sum)

    exact = answer(errors)
    return exact, map(answer, errors.runs(RUNS, seed)), errors.amplification


def _then(first: OnCotangent, second: OnCotangent) -> OnCotangent:
    return lambda node, step, cotangent, sent: second(node, step, cotangent, first(node, step, cotangent, sent))


def operand_spreads(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    dtype: str,
    chosen: Callable[[Node], bool],
    *,
    seed: Sequence[int],
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

    errors = _Errors(dtype, ONE_ROUNDING, graph)
    exact = operands(errors.on_value)
    squares: dict[int, list[Any]] = {key: [0.0] * len(given) for key, given in exact.items()}
    for run in errors.runs(RUNS, seed):
        for key, given in operands(run.on_value).items():
            moved = zip(squares[key], given, exact[key], strict=True)
            squares[key] = [total + np.square(_moved(np.asarray(x), true)) for total, x, true in moved]
    scale = errors.amplification * np.sqrt(RUNS)
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
) -> TensorFloor:
    """The spread of the loss alone: forward passes only."""
    elementary = graph.decomposed()
    return tensor_floor(
        value_deviations(interpreter, elementary, leaves, dtype, seed=seed, arithmetic=arithmetic, runs=runs)
    )


def value_deviations(
    interpreter: Interpreter,
    graph: Graph,
    leaves: Mapping[str, Array],
    dtype: str,
    *,
    seed: Sequence[int],
    arithmetic: Arithmetic = ONE_ROUNDING,
    runs: int = RUNS,
) -> Array:
    """How far each run moves the loss, of shape (runs,): forward passes only."""
    errors = _Errors(dtype, arithmetic, graph)
    loss = interpreter.loss(interpreter.forward(graph, leaves, on_value=errors.on_value))
    values = [
        interpreter.loss(interpreter.forward(graph, leaves, on_value=run.on_value)) - loss
        for run in errors.runs(runs, seed)
    ]
    return np.array(values) / errors.amplification


def tensor_floor(deviations: Array) -> TensorFloor:
    """Each element's spread, shrunk towards its row's: a small sample alone would call too many elements quiet.

    A vector has no rows, and its elements may differ in scale, so there each stands for itself.
    """
    return _shrunk(rms(deviations), len(deviations))


def _shrunk(spread: Array, runs: int) -> TensorFloor:
    elements, largest = spread, float(np.max(spread, initial=0.0))
    if spread.ndim > 1 and 0 < largest < np.inf:
        squares = (spread / largest) ** 2
        row = np.mean(squares, axis=tuple(range(1, spread.ndim)), keepdims=True)
        elements = largest * np.sqrt((runs * squares + SHRINKAGE * row) / (runs + SHRINKAGE))
    return TensorFloor(norm(spread), elements, runs)


class Spread:
    """The floor of one result, from its deviations in one run after another, none of which is kept.

    Deviations that are alike in all runs are no spread: the result jumps at this very point, and they are measured from
    where it jumps to.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.runs, self._total, self._mean = 0, np.zeros(shape), np.zeros(shape)

    def add(self, deviation: Array) -> None:
        self.runs += 1
        self._total = np.hypot(self._total, deviation)  # squares would under- and overflow
        self._mean = self._mean + (deviation - self._mean) / self.runs

    def floor(self) -> TensorFloor:
        """NaN where there were no runs."""
        if not self.runs:
            return TensorFloor(float("nan"), np.full(self._total.shape, np.nan), 0)
        spread = self._total / np.sqrt(self.runs)
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = np.where(spread > 0, np.abs(self._mean) / spread, 0.0)
        jumps = (alike > ALIKE) & (self.runs > 2)
        return _shrunk(np.where(jumps, spread * np.sqrt(np.maximum(1 - alike**2, 0.0)), spread), self.runs)


class _Errors:
    """The standard deviation of each rounding error in a graph, as `Rounding` names it for each op: taken down while
    it runs unperturbed, with these three as its hooks.

    Perturbed runs take it from there, as errors move it only in second order.
    """

    def __init__(self, dtype: str, arithmetic: Arithmetic, graph: Graph) -> None:
        found = RoundingErrors.of(dtype, arithmetic)
        self.own, self.tiny = found.roundoff / found.amplification, found.tiny
        narrow = any(node.narrow and find_dtype(node.narrow).unit_roundoff > self.own for node in graph.nodes)
        self.amplification = 1.0 if narrow else found.amplification  # of errors that float64 would lose
        self.arithmetic = arithmetic
        self.of_values: dict[int, Any] = {}
        self.of_sent: dict[int, Sequence[Any]] = {}
        self.of_sums: dict[int, Any] = {}

    def runs(self, count: int, seed: Sequence[int]) -> Iterator[_Run]:
        """The hooks of so many perturbed runs."""
        rng = np.random.Generator(np.random.SFC64([*seed]))  # a good generator, and the quickest
        return itertools.repeat(_Run(self, rng), count)

    def on_value(self, node: Node, step: Any) -> Any:
        kind = _rounding(node).value
        if kind == "rounded":
            self.of_values[node.id] = self._deviation(node, step.output)
        elif kind != "exact":
            moment = step.with_operands([_square(o) for o in step.operands]).output
            growth: Any = 1.0
            if sums := self._sums(node, kind):
                growth = sums.growth(step.with_operands([_one(o) for o in step.operands]).output)
            self.of_values[node.id] = self._deviation(node, step.output, moment, growth)
        return step.output

    def on_cotangent(self, node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        kind = _rounding(node).cotangent
        if kind == "rounded":
            self.of_sent[node.id] = [None if s is None else self._deviation(node, s) for s in sent]
        elif kind != "exact":
            moments = self._pulled(step, _square, cotangent)
            growths: Sequence[Any] = [1.0] * len(sent)
            if sums := self._sums(node, kind):
                growths = [None if k is None else sums.growth(k) for k in self._pulled(step, _one, cotangent)]
            parts = zip(sent, moments, growths, strict=True)
            self.of_sent[node.id] = [None if s is None else self._deviation(node, s, m, c) for s, m, c in parts]
        return sent

    def on_sum(self, node: Node, total: Any, parts: Sequence[Any]) -> Any:
        """Added one after another: of three parts or more the partial sums are rounded as well."""
        count, squares = np.zeros(np.shape(total)), np.zeros(np.shape(total))
        for part in parts:
            key, values = getattr(part, "key", ...), getattr(part, "values", part)
            count[key] += np.asarray(values) != 0
            squares[key] += np.square(values)
        added = np.maximum(count - 1, 0.0)
        self.of_sums[node.id] = self._deviation(node, total, np.where(added > 1, squares, 0.0), np.sqrt(added))
        return total

    def _roundoff(self, node: Node) -> float:
        """That of the dtype on trial, or of the narrower one in which a captured loss computes this node."""
        narrow = find_dtype(node.narrow).unit_roundoff if node.narrow else 0.0
        return self.amplification * max(self.own, narrow)

    def _sums(self, node: Node, kind: str) -> Sums | None:
        return self.arithmetic.sums_of("sum" if kind == "sum" else node.op)

    def _pulled(self, step: Any, change: Callable[[Any], Any], cotangent: Any) -> Sequence[Any]:
        """The op's own vjp with operands and cotangent squared, or replaced by ones."""
        changed = step.with_operands([change(o) for o in step.operands])
        changed.needs = step.needs
        pulled: Sequence[Any] = changed.pull(change(cotangent))
        return pulled

    def _deviation(self, node: Node, x: Any, moment: Any = None, growth: Any = 1.0) -> Any:
        # a moment is negative only by a wrong vjp
        size = np.abs(x) if moment is None else growth * np.sqrt(np.square(x) + np.abs(moment))
        # what is 0 without any rounding (a sum of zeros, a masked value) is 0 in every format
        deviation = self._roundoff(node) * size + np.where(size > 0, self.tiny, 0.0)
        # an infinity, as of a mask, is exact
        return np.where(np.isinf(x), 0.0, deviation)


class _Run:
    """One run's rounding errors: Gaussian, beside what becomes of the operands of products, which is carried out."""

    def __init__(self, errors: _Errors, rng: np.random.Generator) -> None:
        self.errors, self.rng = errors, rng

    def on_value(self, node: Node, step: Any) -> Any:
        output = self._reduced(node, step).output if self._reduces(node)[0] else step.output
        return self._perturbed(output, self.errors.of_values.get(node.id))

    def on_cotangent(self, node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        _, *reduces = self._reduces(node)
        if any(reduces):
            pulled = self._reduced(node, step).pull(self._rounded(node, cotangent))
            chosen = zip(reduces, pulled, sent, strict=False)
            sent = [*(short if reduced else full for reduced, short, full in chosen), *sent[FACTORS:]]
        errors = self.errors.of_sent.get(node.id)
        return sent if errors is None else [self._perturbed(s, e) for s, e in zip(sent, errors, strict=True)]

    def on_sum(self, node: Node, total: Any, parts: Sequence[Any]) -> Any:
        return self._perturbed(total, self.errors.of_sums.get(node.id))

    def _reduces(self, node: Node) -> Sequence[bool]:
        """Whether the factors of its value are rounded, and those of the cotangents that it sends to either factor."""
        operands, rounding = self.errors.arithmetic.operands, _rounding(node)
        if operands is None:
            return (False,) * (1 + FACTORS)
        kinds = (rounding.value, *(rounding.cotangent,) * FACTORS)
        parts = zip(kinds, products(node), strict=True)
        return [kind == "contraction" and operands.are_of(node.op, product) for kind, product in parts]

    def _reduced(self, node: Node, step: Any) -> Any:
        """The same contraction of rounded factors."""
        factors = [self._rounded(node, o) for o in step.operands[:FACTORS]]
        reduced = step.with_operands([*factors, *step.operands[FACTORS:]])
        reduced.needs = step.needs
        return reduced

    def _rounded(self, node: Node, x: Any) -> Any:
        """A factor, or a cotangent; where it was scaled first nobody knows by what, so by anything."""
        operands = self.errors.arithmetic.operands
        if operands is None:
            return x
        scale = 2.0 ** self.rng.random() if operands.scaled and _multiplies_results(node) else 1.0
        return operands.rounded(x * scale) / scale

    def _perturbed(self, x: Any, error: Any) -> Any:
        # numbers of 24 bits are random enough, and drawn in half of the time
        return x if error is None else x + error * self.rng.standard_normal(np.shape(error), np.float32)


def _rounding(node: Node) -> Rounding:
    """A fused op that was kept whole counts as rounded once."""
    return find_op(node.op).rounding or ROUNDED


def multiplies_results(graph: Graph) -> bool:
    """Whether some contraction multiplies two results of ops."""
    return any(_multiplies_results(node) for node in graph.decomposed().nodes if node.is_op)


def contractions(graph: Graph) -> frozenset[str]:
    """The names of those in the graph."""
    nodes = graph.decomposed().nodes
    return frozenset(node.op for node in nodes if node.is_op and _rounding(node).value == "contraction")


def _multiplies_results(node: Node) -> bool:
    return _rounding(node).value == "contraction" and not any(_is_given(i) for i in node.inputs[:FACTORS])


def _is_given(node: Node | None) -> bool:
    """Whether this is a leaf, or a copy of one."""
    if node is None:
        return False
    while node.is_op and find_op(node.op).rounding is EXACT and len(node.inputs) == 1 and node.inputs[0] is not None:
        node = node.inputs[0]
    return not node.is_op


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
