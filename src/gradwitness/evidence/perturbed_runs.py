"""A graph at a point, run again and again in float64 with every node's rounding drawn anew (Monte Carlo arithmetic).

Every op's value and every cotangent is perturbed as strongly as the dtype on trial would round it.
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
from gradwitness.evidence.products import FACTORS, is_of_results, products, rounding_of
from gradwitness.graph import Graph, Node
from gradwitness.protocol import Interpreter

__all__ = ["ONE_ROUNDING", "RUNS", "OnCotangent", "PerturbedRuns"]

OnCotangent = Callable[[Node, Any, Any, Sequence[Any]], Sequence[Any]]
Gradients = dict[str, Array]  # by path
Chosen = Callable[[Node], bool]
Operands = dict[int, Sequence[Any]]  # by node id
ONE_ROUNDING = Arithmetic()
RUNS = 16  # independent perturbed runs: the degrees of freedom of every spread


def _as_sent(node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
    return sent


@dataclass(frozen=True)
class PerturbedRuns:
    """Runs of a graph as it is, in which a fused op rounds once: `graph.decomposed()` rounds at every step.

    leaves: float64, by path. dtype: the one on trial. arithmetic: how sums round in it, by op
    (`Capabilities.arithmetic`). count: how many runs.
    """

    interpreter: Interpreter
    graph: Graph
    leaves: Mapping[str, Array]
    dtype: str
    seed: Sequence[int]
    arithmetic: Arithmetic = ONE_ROUNDING
    count: int = RUNS

    def gradients(
        self, wrt: Sequence[str], on_cotangent: OnCotangent = _as_sent
    ) -> tuple[Gradients, Iterator[tuple[float, Gradients]]]:
        """(the gradients unperturbed, how far one run after another moves loss and gradients).

        on_cotangent: may replace what an op sends, unrounded.
        """
        errors = self._errors()

        def answer(hooks: _Errors | _Run) -> tuple[float, Gradients]:
            tape = self.interpreter.forward(self.graph, self.leaves, on_value=hooks.on_value)
            then = _then(on_cotangent, hooks.on_cotangent)
            found = self.interpreter.backward(tape, wrt, on_cotangent=then, on_sum=hooks.on_sum)
            return self.interpreter.loss(tape), found

        loss, exact = answer(errors)

        def deviations() -> Iterator[tuple[float, Gradients]]:
            for run in errors.runs(self.count, self.seed):
                value, found = answer(run)
                moved = {path: (g - exact[path]) / errors.amplification for path, g in found.items()}
                yield (value - loss) / errors.amplification, moved

        return exact, deviations()

    def losses(self) -> Array:
        """How far each run moves the loss, of shape (count,): forward passes only."""
        errors = self._errors()

        def loss(hooks: _Errors | _Run) -> float:
            return self.interpreter.loss(self.interpreter.forward(self.graph, self.leaves, on_value=hooks.on_value))

        exact = loss(errors)
        return np.array([loss(run) - exact for run in errors.runs(self.count, self.seed)]) / errors.amplification

    def operands(self, chosen: Chosen) -> tuple[Operands, Operands]:
        """What the chosen nodes are given, and by how much rounding moves it (root mean square)."""

        def given(hooks: _Errors | _Run) -> Operands:
            found: Operands = {}

            def on_value(node: Node, step: Any) -> Any:
                if chosen(node):
                    found[node.id] = step.operands
                return hooks.on_value(node, step)

            self.interpreter.forward(self.graph, self.leaves, on_value=on_value)
            return found

        errors = self._errors()
        exact = given(errors)
        spread: dict[int, list[Any]] = {key: [0.0] * len(found) for key, found in exact.items()}
        for run in errors.runs(self.count, self.seed):
            for key, found in given(run).items():
                moved = zip(spread[key], found, exact[key], strict=True)
                spread[key] = [np.hypot(total, _moved(np.asarray(x), true)) for total, x, true in moved]
        scale = errors.amplification * np.sqrt(self.count)
        return exact, {key: [total / scale for total in totals] for key, totals in spread.items()}

    def _errors(self) -> _Errors:
        return _Errors(self.dtype, self.arithmetic, self.graph)


def _then(first: OnCotangent, second: OnCotangent) -> OnCotangent:
    return lambda node, step, cotangent, sent: second(node, step, cotangent, first(node, step, cotangent, sent))


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
        kind = rounding_of(node).value
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
        kind = rounding_of(node).cotangent
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
        operands, rounding = self.errors.arithmetic.operands, rounding_of(node)
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
        scale = 2.0 ** self.rng.random() if operands.scaled and is_of_results(node) else 1.0
        return operands.rounded(x * scale) / scale

    def _perturbed(self, x: Any, error: Any) -> Any:
        # numbers of 24 bits are random enough, and drawn in half of the time
        return x if error is None else x + error * self.rng.standard_normal(np.shape(error), np.float32)


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
