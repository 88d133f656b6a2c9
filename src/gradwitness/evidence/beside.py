"""The rules beside a kink: at a point nearby the loss is smooth, and its gradient can be validated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwitness.evidence.finite_difference import Differencing
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.reference import reference
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["beside_kinks"]

AWAY = 2.0**-20  # of a leaf's typical value: near, and yet far for the steps of differences in 256 bits
NEAR = 2.0**-30  # the same for float64, where the derivative at the kink itself is known but to a part of 1e-8 or so
DIRECTIONS = 3
WITHIN = 1e-6  # of the gradient: what it may change by on the way there


def beside_kinks(
    interpreter: Interpreter,
    problem: Problem,
    differencing: Differencing,
    paths: Sequence[str],
    *,
    seed: Sequence[int],
    extended: bool,
) -> dict[str, str]:
    """What speaks against the rules for each of these leaves' gradients beside the point; "" where nothing does.

    In 256 bits the gradient is validated at a point nearby (`extended`). Else, or where they cannot say, the one-sided
    derivatives along directions are held against the gradients at points nearby in these directions.
    """
    if not paths:
        return {}
    rng = np.random.default_rng([*seed])
    if extended:
        moves = {path: AWAY * typical(x) * rng.standard_normal(x.shape) for path, x in problem.primals.items()}
        nearby = problem.at({path: x + moves[path] for path, x in problem.primals.items()})
        try:
            refused = reference(interpreter, nearby, seed=(*seed, 1)).refused
        except ArithmeticError:
            pass
        else:
            return {path: refused.get(path, "") for path in paths}
    return {path: _along_directions(interpreter, problem, differencing, path, rng) for path in paths}


def _along_directions(
    interpreter: Interpreter, problem: Problem, differencing: Differencing, path: str, rng: np.random.Generator
) -> str:
    x = problem.primals[path]
    for v in rng.standard_normal((DIRECTIONS, *x.shape)):
        numeric, bound = differencing.one_sided_along(path, v)
        moved = {**problem.leaves, path: x + NEAR * typical(x) * v}
        gradient = interpreter.backward(interpreter.forward(problem.graph, moved), [path])[path]
        slope = float(np.vdot(gradient, v))
        if not abs(slope - numeric) <= bound + WITHIN * norm(gradient) * norm(v):
            found = f"{slope:.9g}, difference {numeric:.9g} +- {bound:.1g}"
            return f"one-sided differences refute it beside the kink: {found}"
    return ""
