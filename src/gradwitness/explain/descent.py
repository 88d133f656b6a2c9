"""One step of gradient descent, and how well the gradient foretold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Descent", "descend"]


@dataclass(frozen=True, eq=False)
class Descent:
    """The loss before and after p - rate * g, and the change that the gradient predicts: -rate |g|^2."""

    rate: float
    before: float
    after: float
    predicted: float
    old: Mapping[str, Array]
    new: Mapping[str, Array]

    @property
    def change(self) -> float:
        return self.after - self.before


def descend(interpreter: Interpreter, problem: Problem, gradients: Mapping[str, Array], rate: float) -> Descent:
    """Take a step at this rate. Raises GradwitnessError unless the rate is positive and finite."""
    if not 0 < rate < float("inf"):
        raise GradwitnessError(f"the rate of a step must be positive and finite, got {rate}")
    old = {path: problem.leaves[path] for path in gradients}
    new = {path: old[path] - rate * g for path, g in gradients.items()}
    before = interpreter.loss(interpreter.forward(problem.graph, problem.leaves))
    after = interpreter.loss(interpreter.forward(problem.graph, {**problem.leaves, **new}))
    return Descent(rate, before, after, -rate * sum(float(np.sum(g * g)) for g in gradients.values()), old, new)
