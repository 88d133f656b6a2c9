"""The NumPy backend: on trial like the others, and the interpreter that the evidence is gathered with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from gradwitness.arithmetic import Sums
from gradwitness.dtypes import Array
from gradwitness.errors import UnsupportedError
from gradwitness.graph import Graph
from gradwitness.lowering import implement
from gradwitness.ops import BUILT_IN
from gradwitness.problem import Candidate, Derived, Problem
from gradwitness.protocol import (
    Capabilities,
    ExtendedInterpreter,
    Extensible,
    Prepared,
    Script,
    expect_options,
    expect_supported,
)
from gradwitness_numpy.by_hand import PreparedByHand
from gradwitness_numpy.forward_mode import forward_mode
from gradwitness_numpy.rule import Rule, own_rule
from gradwitness_numpy.rules import RULES, one_hot_in, with_rules
from gradwitness_numpy.sweep import OnCotangent, OnSum, OnValue, Tape, backward, forward

__all__ = ["NumpyBackend", "PreparedNumpy"]

_QUIET: dict[str, Any] = {"all": "ignore"}  # overflow shows as inf in the result, where the verdict sees it


class NumpyBackend(Extensible):
    """Hand-derived backprop in float64 or float32."""

    name = "numpy"
    capabilities = Capabilities(
        dtypes=("float64", "float32"),
        ops=BUILT_IN,
        requires=("numpy", "scipy"),
        interpreter=True,
        native=True,
        ways={"jvp": ("forward mode",)},
        sums={
            ("sum", "float64"): Sums(0.5, free=64),  # a product with ones, by BLAS
            ("sum", "float32"): Sums(0.5, free=64),
            ("matmul", "float64"): Sums(0.5, free=24, most=16),  # OpenBLAS sums in blocks, small products excepted
            ("matmul", "float32"): Sums(0.5, free=24, most=16),
        },
    )

    def devices(self) -> Sequence[str]:
        return ("cpu",)

    def settings(self, precision: str) -> dict[str, str]:
        return {"matmul": "BLAS, full precision"}

    @contextmanager
    def precision(self, precision: str) -> Iterator[None]:
        yield

    def extend(self, implementations: Mapping[str, Any]) -> None:
        """Rules, or pairs (forward, vjp) of which `own_rule` makes some."""
        self._have({name: own_rule(name, given) for name, given in implementations.items()})

    def lower(self, graph: Graph) -> Any:
        return lambda leaves: self.loss(self.forward(graph, leaves))

    def script(self, dtype: str) -> Script:
        """What a script without gradwitness runs: the rules, and a sweep of a page."""
        from gradwitness_numpy import standalone

        one_hot = replace(RULES["one_hot"], forward=one_hot_in(np.dtype(dtype)))
        rules = {**RULES, "one_hot": one_hot, **self.own_ops}
        ops = {name: standalone.recorded(rule) for name, rule in rules.items()}
        return Script(standalone.value, standalone.gradient, standalone.by_hand, ops)

    def prepare(self, candidate: Candidate, problem: Problem, *, dtype: str, device: str) -> Prepared:
        expect_supported(self, dtype, device)
        expect_options(self, candidate)
        if candidate.is_written_by_hand:
            return PreparedByHand(implement(candidate, problem, self.lower), np.dtype(dtype))
        if isinstance(candidate.loss, Derived):
            return self._by_forward_mode(candidate, candidate.loss, problem, np.dtype(dtype))
        graph = problem.graph if candidate.loss is None else candidate.loss
        if not isinstance(graph, Graph):
            raise UnsupportedError(
                "NumPy differentiates no loss that is written in its own arrays: give the gradient as well, "
                'Candidate("numpy", loss, gradient=...), or write the loss over gradwitness.ops'
            )
        return PreparedNumpy(graph, problem, np.dtype(dtype), self.own_ops)

    def _by_forward_mode(
        self, candidate: Candidate, asked: Derived, problem: Problem, dtype: np.dtype[Any]
    ) -> Prepared:
        if not isinstance(asked.loss, Graph):
            raise UnsupportedError("NumPy goes forward through graphs alone, none of a loss in its own arrays")
        wrt = [path for path in asked.problem.differentiated if path in asked.loss.leaves]
        implementation = implement(candidate, problem, self.lower)
        return PreparedByHand(forward_mode(implementation, asked.loss, wrt, self.lower), dtype)

    def forward(
        self,
        graph: Graph,
        leaves: Mapping[str, Array],
        *,
        on_value: OnValue | None = None,
        reuse: Tape | None = None,
        changed: Sequence[str] = (),
    ) -> Tape:
        with np.errstate(**_QUIET):
            graph, rules = with_rules(graph, one_hot_in(np.float64), self.own_ops)
            known = {**graph.constants, **leaves}
            return forward(graph, rules, known, on_value=on_value, reuse=reuse, changed=changed)

    def loss(self, tape: Tape) -> float:
        return float(np.reshape(tape.loss, ()))

    def backward(
        self,
        tape: Tape,
        wrt: Sequence[str],
        *,
        cotangent: float = 1.0,
        on_cotangent: OnCotangent | None = None,
        on_sum: OnSum | None = None,
    ) -> dict[str, Array]:
        seed = np.full(np.shape(tape.loss), cotangent, getattr(tape.loss, "dtype", np.float64))
        with np.errstate(**_QUIET):
            return backward(tape, wrt, seed, on_cotangent=on_cotangent, on_sum=on_sum)

    def extended(self, bits: int) -> AbstractContextManager[ExtendedInterpreter]:
        from gradwitness_numpy.extended import extended

        return extended(bits, self.own_ops)


class PreparedNumpy:
    """A graph with its leaves in the candidate's dtype."""

    def __init__(self, graph: Graph, problem: Problem, dtype: np.dtype[Any], own: Mapping[str, Rule]) -> None:
        started = time.perf_counter()
        self.dtype, self.wrt, self.own = dtype, problem.differentiated, own
        self.graph = self._with_rules(graph)[0]
        self.fixed = {path: self._cast(a) for path, a in problem.inputs(self.graph).items()}
        self.setup_seconds = time.perf_counter() - started

    def _with_rules(self, graph: Graph) -> tuple[Graph, Mapping[str, Rule]]:
        return with_rules(graph, one_hot_in(self.dtype), self.own)

    def _cast(self, array: Array) -> Array:
        return array.astype(self.dtype) if array.dtype.kind == "f" else array

    def value(self, params: Mapping[str, Array]) -> float:
        return float(np.reshape(self.forward(self.place(params)).loss, ()))

    def value_and_gradient(self, params: Mapping[str, Array]) -> tuple[float, dict[str, Array | None]]:
        tape = self.forward(self.place(params))
        return float(np.reshape(tape.loss, ())), self.fetch(self.backward(tape))

    def place(self, params: Mapping[str, Array]) -> dict[str, Array]:
        return {path: self._cast(a) for path, a in params.items()}

    def forward(self, placed: Mapping[str, Array]) -> Tape:
        with np.errstate(**_QUIET):
            return forward(*self._with_rules(self.graph), {**self.fixed, **placed})

    def backward(self, tape: Tape) -> dict[str, Array]:
        with np.errstate(**_QUIET):
            return backward(tape, self.wrt, np.ones(np.shape(tape.loss), self.dtype))

    def forward_backward(self, placed: Mapping[str, Array]) -> dict[str, Array]:
        return self.backward(self.forward(placed))

    def wait(self, x: Any) -> None:
        """NumPy has finished when it returns."""

    def fetch(self, gradient: Mapping[str, Array]) -> dict[str, Array | None]:
        return {path: np.array(gradient[path], self.dtype) if path in gradient else None for path in self.wrt}
