"""One wrong element of a gradient: who gives it, where, and what is seen there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import Array, find_dtype
from gradwitness.errors import GradwitnessError
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.repro.difference import central_difference, explained
from gradwitness.run.preparing import prepare
from gradwitness.settings import Settings

__all__ = ["Fault", "Seen", "located", "look"]

TINY = 1e-300
SEEDS = (0, 1, 2)  # of the directions along which a wrong element is looked for


@dataclass(frozen=True)
class Fault:
    """An element of a candidate's gradient, by the leaf's path and its index there, in one dtype on one device."""

    candidate: Candidate
    problem: Problem
    dtype: str
    device: str
    settings: Settings
    path: str
    index: tuple[int, ...] = ()

    @property
    def leaf(self) -> Array:
        return self.problem.leaves[self.path]


@dataclass(frozen=True)
class Seen:
    """What a candidate gives at a fault: its loss and the element of its gradient, None if it gives none, and the
    derivative of its loss in float64, with a bound."""

    loss: float
    gradient: float | None
    difference: float
    bound: float
    dtype: str

    @property
    def is_wrong(self) -> bool:
        """None counts as 0: right where nothing leads to the loss."""
        if not math.isfinite(self.loss) or not math.isfinite(self.bound):
            return False
        return not explained(self.gradient or 0.0, self.difference, self.bound, find_dtype(self.dtype).unit_roundoff)

    @property
    def kind(self) -> str:
        if self.gradient is None:
            return "missing"
        return "disagree" if math.isfinite(self.gradient) else "nonfinite"

    @property
    def error(self) -> float:
        """How far the gradient, None as 0, is from the derivative; infinite where it is no number."""
        error = abs((self.gradient or 0.0) - self.difference)
        return error if math.isfinite(error) else math.inf

    @property
    def relative_error(self) -> float:
        """The same as a part of the larger of both."""
        return self.error / max(abs(self.gradient or 0.0), abs(self.difference), TINY)


def look(fault: Fault) -> Seen:
    """What the candidate gives there. Raises what the candidate raises."""
    with registry.installed(fault.candidate.backend).precision(fault.settings.precision):
        tried = _prepared(fault, fault.dtype)
        loss, gradients = tried.value_and_gradient(fault.problem.primals)
        wide = tried if fault.dtype == "float64" else _prepared(fault, "float64")
        difference, bound, _ = central_difference(_along(fault, wide), float(fault.leaf[fault.index]))
    found = gradients.get(fault.path)
    return Seen(loss, None if found is None else float(found[fault.index]), difference, bound, fault.dtype)


def located(fault: Fault) -> Fault:
    """The same at an element that is wrong. Raises GradwitnessError if no difference shows one."""
    with registry.installed(fault.candidate.backend).precision(fault.settings.precision):
        found = _prepared(fault, fault.dtype).value_and_gradient(fault.problem.primals)[1].get(fault.path)
        gradient = np.zeros(fault.leaf.shape) if found is None else found.astype(np.float64)
        wide = _prepared(fault, "float64")
        for index in (_first_not_finite(gradient), *(_bisected(fault, wide, gradient, seed) for seed in SEEDS)):
            at = replace(fault, index=tuple(int(i) for i in np.unravel_index(index, gradient.shape)))
            if look(at).is_wrong:
                return at
    raise GradwitnessError(
        f"{fault.path}: no single element is so wrong that a finite difference and rounding in {fault.dtype} do "
        "not explain it, so a script of its own has nothing to show"
    )


def _prepared(fault: Fault, dtype: str) -> Prepared:
    return prepare(fault.candidate, fault.problem, dtype, fault.device, fault.settings)


def _along(fault: Fault, wide: Prepared) -> Callable[[float], float]:
    """The loss as a function of the element."""

    def loss(x: float) -> float:
        moved = fault.leaf.copy()
        moved[fault.index] = x
        return wide.value({**fault.problem.primals, fault.path: moved})

    return loss


def _first_not_finite(gradient: Array) -> int:
    return int(np.argmin(np.isfinite(gradient)))


def _bisected(fault: Fault, wide: Prepared, gradient: Array, seed: int) -> int:
    """The flat index at which the derivatives along ever shorter directions, each half of the last, lead."""
    directions = np.random.default_rng(seed).standard_normal(gradient.size)
    places = np.arange(gradient.size)
    while places.size > 1:
        halves = np.array_split(places, 2)
        places = max(halves, key=lambda half: _error_along(fault, wide, gradient, half, directions[half]))
    return int(places[0])


def _error_along(fault: Fault, wide: Prepared, gradient: Array, places: Array, weights: Array) -> float:
    """How far the derivative along these elements is from what the gradient says."""
    direction = np.zeros(gradient.size)
    direction[places] = weights / np.linalg.norm(weights)
    direction = direction.reshape(gradient.shape)

    def loss(t: float) -> float:
        return wide.value({**fault.problem.primals, fault.path: fault.leaf + t * direction})

    difference, bound, _ = central_difference(loss, 0.0)
    error = abs(float(np.vdot(direction, gradient)) - difference)
    return error if math.isfinite(error) and math.isfinite(bound) else 0.0
