"""The gradient in extended precision, validated by differences in which no derivative rule takes part.

The hand-derived rules run on balls of 256 bits (Johansson, "Arb: efficient arbitrary-precision midpoint-radius
interval arithmetic", IEEE Trans. Comput. 66 (2017)). Tensor by tensor, the gradient is held against central
differences of the forward pass alone, along three Gaussian directions. Were it off by e in norm, all three would agree
within d with a probability below (d / e)^3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.evidence.norms import typical
from gradwitness.problem import Problem
from gradwitness.protocol import ExtendedInterpreter, Interpreter

__all__ = ["Exact", "Reference", "exactly", "reference"]

Array = np.ndarray[Any, Any]
BITS = 256
STEP = -80  # the step's power of two, of the typical value of the leaf: the error of the difference is its square
DIRECTIONS = 3
AGREEMENT = 1e-30  # of the loss or the largest derivative along a direction: what the differences may be off


@dataclass(frozen=True)
class Exact:
    """Numbers beyond float64, as the unevaluated sum of two float64 arrays of the same shape."""

    high: Array
    low: Array

    def error_of(self, x: Array) -> Array:
        """x less these numbers."""
        error: Array = (x - self.high) - self.low
        return error


def exactly(numbers: Any) -> Exact:
    """An array of floats, or of balls by their midpoints."""
    high = np.asarray(numbers).astype(np.float64)
    return Exact(high, np.asarray(numbers - high).astype(np.float64))


@dataclass(frozen=True)
class Reference:
    """Loss and gradients as NumPy's forward pass defines them; `refused`: why a gradient is not to be trusted."""

    loss: float
    gradients: dict[str, Exact]
    refused: dict[str, str]


def reference(interpreter: Interpreter, problem: Problem, *, seed: Sequence[int]) -> Reference:
    """The gradient at the problem's point by leaf, in 256 bits, validated.

    A leaf that no path connects with the loss has a gradient of zeros. Raises ArithmeticError where a branch
    cannot be decided (a ball straddles it), or the loss is not finite.
    """
    rng = np.random.default_rng([*seed])
    with interpreter.extended(BITS) as wide:
        return _reference(_Pass(wide, problem), problem, rng)


def _reference(here: _Pass, problem: Problem, rng: np.random.Generator) -> Reference:
    if not here.loss.is_finite():
        raise ArithmeticError(f"the loss is {float(here.loss)}")
    found = here.wide.backward(here.tape, problem.differentiated)
    checks = {path: here.checks(path, gradient, rng) for path, gradient in found.items()}
    scale = max([abs(float(here.loss)), *(abs(numeric) for pairs in checks.values() for _, numeric in pairs)])
    refused = {path: reason for path, pairs in checks.items() if (reason := _refusal(pairs, AGREEMENT * scale))}
    zeros = {path: np.zeros(x.shape) for path, x in problem.primals.items()}
    gradients = {path: exactly(numbers) for path, numbers in (zeros | found).items()}
    return Reference(float(here.loss), gradients, refused)


class _Pass:
    """The forward pass at the point, and what comes of moving one leaf."""

    def __init__(self, wide: ExtendedInterpreter, problem: Problem) -> None:
        self.wide, self.graph, self.primals = wide, problem.graph, problem.primals
        self.leaves = {path: wide.numbers(x) for path, x in problem.leaves.items()}
        self.tape = wide.forward(self.graph, self.leaves)
        self.loss = wide.loss(self.tape)

    def checks(self, path: str, gradient: Any, rng: np.random.Generator) -> list[tuple[float, float]]:
        """(what the difference is off by at most, the difference) along each direction within one leaf."""
        x = self.primals[path]
        step = 2.0 ** (STEP + math.frexp(typical(x))[1])
        found = []
        for direction in rng.standard_normal((DIRECTIONS, *x.shape)):
            v = self.wide.numbers(direction)
            numeric = (self._moved(path, v * step) - self._moved(path, v * -step)) / (2 * step)
            gap = abs((gradient * v).sum().item() - numeric)
            found.append((float(gap.upper()), float(numeric)))
        return found

    def _moved(self, path: str, by: Any) -> Any:
        moved = {**self.leaves, path: self.leaves[path] + by}
        return self.wide.loss(self.wide.forward(self.graph, moved, reuse=self.tape, changed=[path]))


def _refusal(pairs: Sequence[tuple[float, float]], allowed: float) -> str:
    """Why the differences do not confirm it; empty if they do."""
    gap, numeric = max(pairs, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    if gap <= allowed:
        return ""
    return f"256-bit differences of the forward pass refute it: off by {gap:.2g} from {numeric:.9g} along a direction"
