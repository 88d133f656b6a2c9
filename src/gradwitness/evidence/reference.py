"""The gradient in extended precision, validated by differences in which no derivative rule takes part.

The hand-derived rules run on balls of 256 bits (Johansson, "Arb: efficient arbitrary-precision midpoint-radius
interval arithmetic", IEEE Trans. Comput. 66 (2017)). Tensor by tensor, the gradient is held against central
differences of the forward pass alone, along two Gaussian directions. Were it off by e in norm, both would agree
within d with a probability below (d / e)^2: 1e-28 for an error of one float64 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.norms import norm, typical
from gradwitness.problem import Problem
from gradwitness.protocol import ExtendedInterpreter, Interpreter

__all__ = ["AGREEMENT", "BITS", "DIRECTIONS", "REFINED", "Exact", "Pass", "Reference", "exactly", "reference"]

BITS = 256
STEP = -110  # the step's power of two, of the typical value of the leaf: the error of the difference is its square
DIRECTIONS = 2
REFINED = 12  # powers of two by which the step is shortened to tell what is an error of the difference
AGREEMENT = 1e-30  # of the tensor's own derivatives: what the differences may be off
SMALLEST = 1e-12  # of the largest share: a leaf whose own is smaller is differenced alone
TOGETHER = 1e-32  # of the derivative along a direction through all tensors


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
        return _reference(Pass(wide, problem), problem, rng)


def _reference(here: Pass, problem: Problem, rng: np.random.Generator) -> Reference:
    found = here.wide.backward(here.tape, problem.differentiated)
    refused = _refused(here, found, rng)
    zeros = {path: np.zeros(x.shape) for path, x in problem.primals.items()}
    gradients = {path: exactly(numbers) for path, numbers in (zeros | found).items()}
    return Reference(float(here.loss), gradients, refused)


def _refused(here: Pass, found: dict[str, Any], rng: np.random.Generator) -> dict[str, str]:
    """The leaves whose gradients differences do not confirm, each with the reason."""
    shares = {path: norm(np.asarray(g).astype(np.float64)) * here.scales[path] for path, g in found.items()}
    largest = max(shares.values(), default=0.0)
    together = {path: g for path, g in found.items() if SMALLEST * largest <= shares[path] < math.inf}
    alone = {path: g for path, g in found.items() if path not in together}
    if not _are_confirmed_together(here, together, rng):
        alone = found
    return _refused_alone(here, alone, rng)


def _are_confirmed_together(here: Pass, found: dict[str, Any], rng: np.random.Generator) -> bool:
    """Whether differences along directions through all leaves at once confirm every gradient.

    That costs a few forward passes. In 256 bits a large leaf does not drown a small one: within TOGETHER of the
    derivative, a leaf whose share is SMALLEST of it is confirmed to 1e-20 of its own, and float64 tells 1e-16. Where
    they do not confirm all, each leaf is asked.
    """
    shapes = {path: here.primals[path].shape for path in found}
    draws = [{path: np.asarray(rng.standard_normal(s)) for path, s in shapes.items()} for _ in range(DIRECTIONS)]
    checks = [_check(here, found, drawn) for drawn in draws]
    own = max(abs(check.numeric).mid() for check in checks) if found else 0
    allowed = TOGETHER * own
    return all(
        check.gap.rad() <= allowed and check.gap.lower() <= allowed and abs(check.jump).lower() <= AGREEMENT * own
        for check in checks
    )


def _refused_alone(here: Pass, found: dict[str, Any], rng: np.random.Generator) -> dict[str, str]:
    """The same, leaf by leaf."""
    checks = {path: _checks(here, path, gradient, rng) for path, gradient in found.items()}
    derivatives = [abs(check.numeric).mid() for of_leaf in checks.values() for check in of_leaf]
    scale = max([abs(here.loss).mid(), *derivatives])
    return {path: reason for path, of_leaf in checks.items() if (reason := _refusal(of_leaf, scale))}


class Pass:
    """The forward pass at the point, and what comes of moving one leaf; `loss` is a ball.

    Raises ArithmeticError where a branch cannot be decided, or the loss is not finite.
    """

    def __init__(self, wide: ExtendedInterpreter, problem: Problem) -> None:
        self.wide, self.graph, self.primals = wide, problem.graph, problem.primals
        self.scales = {path: 2.0 ** math.frexp(typical(x))[1] for path, x in self.primals.items()}
        self.leaves = {path: wide.numbers(x) for path, x in problem.leaves.items()}
        self.tape = wide.forward(self.graph, self.leaves)
        self.loss = wide.loss(self.tape)
        if not self.loss.is_finite() or not math.isfinite(float(self.loss)):
            raise ArithmeticError(f"the loss is {float(self.loss)}")

    def step(self, *, finer: int = 0) -> Any:
        """How far leaves are moved, in parts of their scales, as a ball: 2**STEP, and 2**-finer of that."""
        return self.wide.numbers(np.array(2.0)).item() ** (STEP - finer)

    def moved(self, by: Mapping[str, Any]) -> Any:
        """The loss, a ball, after adding balls to leaves, by path, of their shapes."""
        moved = {**self.leaves, **{path: self.leaves[path] + x for path, x in by.items()}}
        return self.wide.loss(self.wide.forward(self.graph, moved, reuse=self.tape, changed=list(by)))


@dataclass(frozen=True)
class _Check:
    """Derivatives along one direction, as balls: of the gradient, numerical, and from the right less from the left.

    finer: the same with a step 2**-REFINED as long.
    """

    analytic: Any
    numeric: Any
    jump: Any
    finer: Callable[[], _Check]

    @property
    def gap(self) -> Any:
        return abs(self.analytic - self.numeric)


def _checks(here: Pass, path: str, gradient: Any, rng: np.random.Generator) -> list[_Check]:
    directions = rng.standard_normal((DIRECTIONS, *here.primals[path].shape))
    return [_check(here, {path: gradient}, {path: v}) for v in directions]


def _check(here: Pass, gradients: Mapping[str, Any], directions: Mapping[str, Array], *, finer: int = 0) -> _Check:
    """Along these directions of leaves, each in parts of what is typical of its leaf, by a step of 2**STEP."""
    step = here.step(finer=finer)
    v = {path: here.wide.numbers(z * here.scales[path]) for path, z in directions.items()}
    up, down = (here.moved({path: x * by for path, x in v.items()}) for by in (step, -step))
    numeric, jump = (up - down) / (2 * step), (up - 2 * here.loss + down) / step
    analytic = sum((gradients[path] * x).sum().item() for path, x in v.items())
    return _Check(analytic, numeric, jump, partial(_check, here, gradients, directions, finer=finer + REFINED))


def _refusal(checks: Sequence[_Check], scale: Any) -> str:
    """Why the differences do not confirm a gradient; empty if they do.

    Balls as wide as what they enclose would confirm anything. What shrinks with the step is its error: the gap with its
    square, the jump with itself. A jump that stays is a kink, at which a symmetric difference is the mean of both
    sides and agrees with a slope of one half by accident.
    """
    own = max(abs(check.numeric).mid() for check in checks)
    for check in checks:
        if not check.gap.rad() <= AGREEMENT * scale:
            is_finite = check.analytic.is_finite()
            return "256 bits are too few to tell its derivative" if is_finite else "it is not finite in 256 bits"
        allowed = AGREEMENT * own
        if not check.gap.lower() <= allowed and not check.finer().gap.lower() <= check.gap * 4.0 ** (1 - REFINED):
            along = f"off by {float(check.gap):.2g} from {float(check.numeric):.9g} along a direction"
            return f"256-bit differences of the forward pass refute it: {along}"
        jump = abs(check.jump)
        if not jump.lower() <= allowed and not abs(check.finer().jump).lower() <= jump * 2.0 ** (1 - REFINED):
            left, right = float(check.numeric - check.jump / 2), float(check.numeric + check.jump / 2)
            return f"it lies at a kink: one-sided derivatives along a direction are {left:.9g} and {right:.9g}"
    return ""
