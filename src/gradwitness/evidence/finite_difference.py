"""Numerical derivatives, each with a bound on its own error.

Central differences at three halved steps, extrapolated twice (Richardson 1911; Ridders, "Accurate
computation of F'(x)", Adv. Eng. Software 4 (1982)). The bound adds what halving the step changed in
the first extrapolation (truncation), the rounding of the loss and of the point over the step, and the jump
between the one-sided derivatives (a kink), extrapolated from second differences, which vanishes where the loss
is smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness.evidence.norms import typical

__all__ = ["BRIEF", "THOROUGH", "Differences", "Differencing", "Probe", "Probing", "textbook_difference"]

Array = np.ndarray[Any, Any]
LossOf = Callable[[str, Array], float]  # the loss with the leaf at this path replaced

STEPS = (2e-3, 4e-5, 8e-7)  # of the scale of what is moved: the first for smooth losses, the last beside kinks
LONG_STEPS = (0.3, 6e-2, 1e-2)  # tried first where the loss is so noisy that shorter ones drown
NOISY = 1e-12  # noise of this part of the loss
TEXTBOOK_STEP = 1e-5
SIGMAS = 6.0  # rounding errors of the loss are taken to stay within this many standard deviations
CHECK_STEPS = (
    1e-7,
    1e-10,
)  # plain differences at these steps unmask longer ones that skipped over oscillations or poles
CHECK_WITHIN = 1e-2
UNIT_ROUNDOFF = 2.0**-53
QUICK = 1e-6  # the same where differences only lead the way
PRECISE = 1e-8  # a bound below this part of the derivative needs no smaller step


@dataclass(frozen=True)
class Probing:
    """How much is differenced: every coordinate of a leaf of up to so many elements; of larger ones so many sampled
    coordinates, and so many Gaussian directions within the leaf."""

    every: int
    coordinates: int
    directions: int


THOROUGH = Probing(every=32, coordinates=12, directions=3)
BRIEF = Probing(every=16, coordinates=1, directions=2)  # where they confirm what other evidence speaks for


@dataclass(frozen=True)
class Probe:
    """One numerical derivative: along coordinate `index` (flat), or along `direction` (the leaf's shape)."""

    value: float
    bound: float
    index: int | None = None
    direction: Array | None = None
    textbook: float | None = None

    def of(self, gradient: Array) -> float:
        """The same derivative according to a gradient."""
        if self.direction is not None:
            return float(np.vdot(self.direction, gradient))
        return float(gradient.reshape(-1)[self.index])


@dataclass(frozen=True)
class Differences:
    """The numerical derivatives of the loss by one leaf: those that are finite, perhaps none."""

    probes: tuple[Probe, ...]
    coordinates: int  # how many of the leaf's elements were differenced one by one
    size: int

    def with_probes(self, probes: Sequence[Probe]) -> Differences:
        """These and further ones."""
        coordinates = self.coordinates + sum(probe.index is not None for probe in probes)
        return replace(self, probes=(*self.probes, *probes), coordinates=coordinates)

    def worst(self, gradient: Array, slack: Callable[[Probe], float]) -> tuple[float, float]:
        """(error, bound) of the probe at which the gradient exceeds bound + slack the most."""
        return max(
            ((abs(p.of(gradient) - p.value), p.bound + slack(p)) for p in self.probes),
            key=lambda pair: _ratio(*pair),
            default=(0.0, np.inf),
        )


@dataclass(frozen=True)
class Differencing:
    """Takes differences of a loss at one point.

    loss_of: the loss with one leaf replaced. primals: the leaves (float64). loss: the value at the
    primals; noise: the standard deviation of its rounding error.
    """

    loss_of: LossOf
    primals: Mapping[str, Array]
    loss: float
    noise: float

    def by_every_leaf(self, probing: Probing, *, seed: Sequence[int]) -> dict[str, Differences]:
        """By each leaf."""
        return {
            path: self._by_leaf(path, probing, np.random.default_rng([*seed, number]))
            for number, path in enumerate(self.primals)
        }

    def by_coordinates(self, path: str, indices: Sequence[int]) -> tuple[Probe, ...]:
        """By single coordinates (flat indices) of a leaf; those that are finite."""
        x = self.primals[path]
        return tuple(p for i in indices if np.isfinite((p := self._by_coordinate(path, i, typical(x))).bound))

    def one_sided(self, path: str, index: int) -> tuple[float, float, float]:
        """(left derivative, right derivative, bound on the error of both) by a coordinate: what a kink is made of."""
        x = self.primals[path]
        scale = max(abs(float(x.flat[index])), typical(x))

        def along(t: float) -> float:
            moved = x.copy()
            moved.flat[index] += t
            return self.loss_of(path, moved)

        (left, left_bound), (right, right_bound) = (self._one_sided(along, side * scale) for side in (-1, 1))
        return left, right, max(left_bound, right_bound)

    def one_sided_along(self, path: str, v: Array) -> tuple[float, float]:
        """(derivative, bound on its error) in the direction v of a leaf, from the side that v points to."""
        x = self.primals[path]
        return self._one_sided(lambda t: self.loss_of(path, x + t * v), typical(x))

    def locate(self, path: str, gradient: Array, slack: Callable[[Array], float], *, seed: Sequence[int]) -> int:
        """The flat index of an element that is wrong in a gradient that is refuted along some direction: group testing.

        The first half of the elements in question moves together, each one up or down at random, and is kept if that
        difference refutes the gradient; the other half otherwise. One wrong element among n takes log2 n differences of
        six values or more (Dorfman, "The detection of defective members of large populations", 1943). slack: what
        rounding in the gradient may add to a difference along a direction.
        """
        x, rng = self.primals[path], np.random.default_rng([*seed])
        suspects = np.arange(x.size)
        while suspects.size > 1:
            half, rest = suspects[: suspects.size // 2], suspects[suspects.size // 2 :]
            v = np.zeros(x.size)
            v[half] = rng.choice([-1.0, 1.0], half.size)
            probe = self._quickly(path, v.reshape(x.shape))
            refuted = abs(probe.of(gradient) - probe.value) > probe.bound + slack(v.reshape(x.shape))
            suspects = half if refuted else rest
        return int(suspects[0])

    def _quickly(self, path: str, v: Array) -> Probe:
        """The derivative along v at the first step that is precise, unchecked by shorter ones."""
        x, probe = self.primals[path], Probe(np.nan, np.inf, direction=v)
        for step in self._steps:
            h = step * typical(x)
            value, bound = _extrapolated(lambda t: self.loss_of(path, x + t * v), h, self.loss, self.noise)
            probe = min(probe, Probe(value, bound, direction=v), key=lambda p: p.bound)
            if probe.bound <= QUICK * abs(probe.value):
                break
        return probe

    def _one_sided(self, along: Callable[[float], float], scale: float) -> tuple[float, float]:
        """The one-sided derivative with the smallest bound among the steps; the left one if the scale is negative."""
        found = []
        for step in self._steps:
            h = step * scale
            slopes = [(along(part) - self.loss) / part for part in (h, h / 2, h / 4)]
            once = 2 * slopes[1] - slopes[0], 2 * slopes[2] - slopes[1]  # the terms in h removed
            bound = abs(once[1] - once[0]) + 2 * _rounding(self.noise, abs(h) / 4)
            found.append(((4 * once[1] - once[0]) / 3, bound if np.isfinite(bound) else np.inf))
        return min(found, key=lambda pair: pair[1])

    def _by_leaf(self, path: str, probing: Probing, rng: np.random.Generator) -> Differences:
        x = self.primals[path]
        everything = x.size <= probing.every
        chosen = range(x.size) if everything else np.sort(rng.choice(x.size, probing.coordinates, replace=False))
        probes = self.by_coordinates(path, [int(i) for i in chosen])
        if not everything:
            directions = [self._by_direction(path, v) for v in rng.standard_normal((probing.directions, *x.shape))]
            probes += tuple(p for p in directions if np.isfinite(p.bound))
        return Differences(probes, len(chosen), x.size)

    def _by_coordinate(self, path: str, index: int, scale: float) -> Probe:
        x = self.primals[path]

        def along(t: float) -> float:
            moved = x.copy()
            moved.flat[index] += t
            return self.loss_of(path, moved)

        value, bound = self._derivative(along, max(abs(float(x.flat[index])), scale))
        textbook = (along(TEXTBOOK_STEP) - along(-TEXTBOOK_STEP)) / (2 * TEXTBOOK_STEP)
        return Probe(value, bound, index=index, textbook=textbook)

    def _by_direction(self, path: str, v: Array) -> Probe:
        x = self.primals[path]
        value, bound = self._derivative(lambda t: self.loss_of(path, x + t * v), typical(x))
        return Probe(value, bound, direction=v)

    def _derivative(self, along: Callable[[float], float], scale: float) -> tuple[float, float]:
        """The derivative at 0 with the smallest bound among the steps, trying smaller ones only if needed.

        A step at which the loss oscillates can look precise by chance: it must agree with very short ones.
        """
        best = (np.nan, np.inf)
        checks = [(step, _central(along, step * scale)) for step in CHECK_STEPS]
        for step in self._steps:
            value, bound = _extrapolated(along, step * scale, self.loss, self.noise)
            bound += _rounding(UNIT_ROUNDOFF * abs(value), step)  # x + h is rounded too, by a part of the scale
            if not all(self._is_near(value, bound, short, scale, check) for short, check in checks):
                continue
            if bound < best[1]:
                best = (value, bound)
            if bound <= PRECISE * abs(value) or bound <= 2 * _rounding(self.noise, step * scale):
                break
        return best

    def _is_near(self, value: float, bound: float, step: float, scale: float, check: float) -> bool:
        """Whether a derivative is that of a shorter step, as far as this can tell."""
        rounding = _rounding(self.noise, step * scale) + _rounding(UNIT_ROUNDOFF * abs(check), step)
        return abs(value - check) <= bound + rounding + CHECK_WITHIN * abs(check)

    @property
    def _steps(self) -> tuple[float, ...]:
        return LONG_STEPS + STEPS if self.noise > NOISY * abs(self.loss) else STEPS


def textbook_difference(gradients: Mapping[str, Array], differences: Mapping[str, Differences]) -> float | None:
    """||a - n|| / (||a|| + ||n||) over all coordinates differenced at step 1e-5: the textbook rule. None for 0 / 0.

    a is the gradient, n the plain central difference; the rule asks for less than 1e-5.
    """
    analytic, numeric = [], []
    for path, found in differences.items():
        for probe in found.probes:
            if probe.textbook is not None:
                analytic.append(probe.of(gradients[path]))
                numeric.append(probe.textbook)
    a, n = np.array(analytic), np.array(numeric)
    total = float(np.linalg.norm(a) + np.linalg.norm(n))
    return float(np.linalg.norm(a - n)) / total if total else None


def _central(along: Callable[[float], float], step: float) -> float:
    return (along(step) - along(-step)) / (2 * step)


def _rounding(noise: float, step: float) -> float:
    """The deviation of the twice extrapolated difference: (64 D(h/4) - 20 D(h/2) + D(h)) / 45."""
    return SIGMAS * 4.1 * noise / step


def _extrapolated(along: Callable[[float], float], step: float, loss: float, noise: float) -> tuple[float, float]:
    steps = (step, step / 2, step / 4)
    pairs = [(along(h), along(-h)) for h in steps]
    slopes = [(up - down) / (2 * h) for (up, down), h in zip(pairs, steps, strict=True)]
    jumps = [(up - 2 * loss + down) / h for (up, down), h in zip(pairs, steps, strict=True)]
    once = (4 * slopes[1] - slopes[0]) / 3, (4 * slopes[2] - slopes[1]) / 3
    twice = (16 * once[1] - once[0]) / 15
    # Odd powers of h: removing h and h^3 leaves the jump of the one-sided derivatives.
    jump_once = 2 * jumps[1] - jumps[0], 2 * jumps[2] - jumps[1]
    jump = (8 * jump_once[1] - jump_once[0]) / 7
    # Generous factors: with a kink inside the smallest step, each part sees less than all of it.
    bound = abs(once[1] - once[0]) + 2 * abs(jump) + _rounding(noise, step)
    return (twice, bound) if np.isfinite(bound) else (np.nan, np.inf)


def _ratio(error: float, bound: float) -> float:
    if not np.isfinite(error):
        return np.inf
    return error / bound if bound > 0 else (np.inf if error else 0.0)
