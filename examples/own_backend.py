"""A backend of one's own, and an op that no other has but NumPy: derivatives by the complex step, Im f(x + ih) / h.

Squire and Trapp, SIAM Review 40 (1998). It shares no derivative rule with NumPy's hand-derived one.
"""

import operator
import time
from contextlib import nullcontext
from typing import Any

import numpy as np

import gradwitness as gw
from gradwitness import lowering
from gradwitness.own_ops import Spec, real, sample
from gradwitness.protocol import Capabilities, Extensible, expect_options, expect_supported

STEP = 1e-100  # nothing is subtracted, so it may be tiny
FUNCTIONS: dict[str, Any] = {
    "add": operator.add,
    "multiply": operator.mul,
    "matmul": operator.matmul,
    "reshape": lambda x, *, shape: np.reshape(x, shape),
    "sum": lambda x, *, axis, keepdims: np.sum(x, axis, keepdims=keepdims),
}


class ComplexStep(Extensible):
    name = "complexstep"
    capabilities = Capabilities(("float64",), frozenset(FUNCTIONS), requires=("numpy",))
    devices = staticmethod(lambda: ["cpu"])
    settings = staticmethod(lambda precision: dict[str, str]())
    precision = staticmethod(lambda precision: nullcontext())

    def lower(self, graph: Any) -> Any:
        return lowering.lower(graph, {**FUNCTIONS, **self.own_ops})

    def prepare(self, candidate: gw.Candidate, problem: gw.Problem, *, dtype: str, device: str) -> Any:
        expect_supported(self, dtype, device)
        expect_options(self, candidate)
        started, graph = time.perf_counter(), candidate.loss or problem.graph
        prepared = Prepared(self.lower(graph), problem.inputs(graph))  # type: ignore[arg-type]  # it is not native
        prepared.setup_seconds = time.perf_counter() - started
        return prepared


class Prepared:
    setup_seconds = 0.0

    def __init__(self, loss: Any, inputs: Any) -> None:
        self.loss, self.inputs = loss, inputs

    def value(self, params: Any) -> float:
        return float(np.real(self.loss({**self.inputs, **params})))

    def value_and_gradient(self, params: Any) -> Any:
        return self.value(params), {path: self.gradient(params, path) for path in params}

    def gradient(self, params: Any, path: str) -> Any:
        gradient = np.zeros(params[path].shape)
        for i in np.ndindex(gradient.shape):
            moved = params[path].astype(complex)
            moved[i] += 1j * STEP
            gradient[i] = np.imag(self.loss({**self.inputs, **params, path: moved})) / STEP
        return gradient

    # For timing. There is no tape: a forward remembers where it was, a backward does the work.
    place = staticmethod(lambda params: {path: np.array(x) for path, x in params.items()})
    forward = staticmethod(lambda placed: placed)
    wait = staticmethod(lambda x: None)
    fetch = staticmethod(lambda gradient: gradient)

    def backward(self, tape: Any) -> Any:
        return self.value_and_gradient(tape)[1]

    forward_backward = backward


def damped(x: Spec, *, rate: float = 0.5) -> Spec:
    """exp(-rate * x) * sin(x)."""
    return x


def define() -> Any:
    return gw.define_op(
        damped,
        rounding="rounded",
        samples=[sample(real(2, 3)), sample(real(5), rate=2.0)],
        numpy=(
            lambda x, *, rate: np.exp(-rate * x) * np.sin(x),
            lambda g, y, x, *, rate: g * (np.exp(-rate * x) * np.cos(x) - rate * y),
        ),
        complexstep=lambda x, *, rate: np.exp(-rate * x) * np.sin(x),
    )


if __name__ == "__main__":
    gw.register_backend(ComplexStep())
    report = gw.verify_op(define(), backends=("numpy", "complexstep"), dtypes=("float64",))
    print(report.table())
    raise SystemExit(not report)
