"""Directional derivatives in 256 bits, for where a gradient in 256 bits takes too long: forward passes alone.

With f the loss, one-sided differences along v at two distances give the derivative and a bound on its error:

    right = (f(x + h v) - f(x)) / h          = f' + h f''/2 + h^2 f'''/6 + ...
    left  = (f(x) - f(x - 2h v)) / 2h        = f' - h f'' + 2 h^2 f'''/3 + ...
    (2 right + left) / 3                     = f' + h^2 f'''/3 + ...

The jump from left to right, 3/2 h f'' - h^2 f'''/2 + ..., is larger than what the last line is off by. At equal
distances it would be 0 for a loss that is odd around x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reference import AGREEMENT, BITS, REFINED, Pass
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["directional_derivatives"]

UNIT_ROUNDOFF = 2.0**-53
ADDED_UP = 3.0  # u sqrt(n) |p| that n products p and their sum may be off by; the sum of three in the worst case


def directional_derivatives(
    interpreter: Interpreter, problem: Problem, directions: Mapping[str, int], *, seed: Sequence[int]
) -> dict[str, tuple[Probe, ...]]:
    """The derivatives of the loss along so many Gaussian directions within each leaf, by path.

    Those at a kink, or at the edge of the loss's domain, are left out: there is none. Raises ArithmeticError where a
    branch cannot be decided, or the loss is not finite.
    """
    rng = np.random.default_rng([*seed])
    gradients = interpreter.backward(interpreter.forward(problem.graph, problem.leaves), list(directions))
    found = {}
    with interpreter.extended(BITS) as wide:
        here = Pass(wide, problem)
        for path, count in directions.items():
            shape = problem.primals[path].shape
            size = np.abs(gradients.get(path, np.zeros(shape)))
            probes = [_probe(here, path, v, size) for v in rng.standard_normal((count, *shape))]
            found[path] = tuple(probe for probe in probes if probe is not None)
    return found


def _probe(here: Pass, path: str, v: Array, gradient: Array) -> Probe | None:
    """The derivative along v, as float64; None if there is none.

    gradient: about how large each element is. Multiplied with v in float64, its products round, which counts as an
    error of the derivative.
    """
    derivative = _derivative(here, path, here.wide.numbers(v))
    if derivative is None:
        return None
    value, jump = float(derivative[0]), float(derivative[1].upper())
    rounding = np.spacing(abs(value)) + ADDED_UP * UNIT_ROUNDOFF * np.sqrt(v.size) * norm(v * gradient)
    bound = float(derivative[0].rad()) + jump + float(rounding)
    return Probe(value, bound, direction=v) if np.isfinite(bound) else None


def _derivative(here: Pass, path: str, v: Any) -> tuple[Any, Any] | None:
    """(derivative, jump) as balls. What makes a jump, if not a kink, shrinks with the step, as beside a pole."""
    derivative, jump = _differences(here, path, v)
    if jump.lower() <= AGREEMENT * abs(derivative).mid():
        return derivative, jump
    finer = _differences(here, path, v, finer=REFINED)
    return finer if finer[1].lower() <= jump * 2.0 ** (1 - REFINED) else None


def _differences(here: Pass, path: str, v: Any, *, finer: int = 0) -> tuple[Any, Any]:
    step = here.step(finer=finer) * here.scales[path]
    right = (here.moved({path: v * step}) - here.loss) / step
    left = (here.loss - here.moved({path: v * (-2 * step)})) / (2 * step)
    return (2 * right + left) / 3, abs(right - left)
