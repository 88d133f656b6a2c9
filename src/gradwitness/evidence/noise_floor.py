"""What rounding alone can explain: the spread of loss and gradients over perturbed runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.norms import norm, rms
from gradwitness.evidence.perturbed_runs import RUNS, OnCotangent, PerturbedRuns

__all__ = ["NoiseFloor", "Spread", "TensorFloor", "joint", "noise_floor", "tensor_floor"]

ALIKE = 0.97  # the part of a spread that is the same in all runs: of 16 by chance, it is a quarter
SHRINKAGE = 4  # a row's mean square counts for as much as this many runs of each of its elements


@dataclass(frozen=True)
class TensorFloor:
    """The floor of one gradient: `norm`, the rms norm of its deviations, and `elements`, its shape, their rms."""

    norm: float
    elements: Array
    runs: int = RUNS


def joint(one: TensorFloor, other: TensorFloor) -> TensorFloor:
    """What two independent causes explain together."""
    return TensorFloor(float(np.hypot(one.norm, other.norm)), np.hypot(one.elements, other.elements), one.runs)


@dataclass(frozen=True)
class NoiseFloor:
    """The floor of the loss (a tensor of no axes), and of each gradient by path, in one dtype at one point."""

    value: TensorFloor
    tensors: dict[str, TensorFloor]


def noise_floor(runs: PerturbedRuns, wrt: Sequence[str], *substituted: OnCotangent) -> NoiseFloor:
    """The spread of the loss and of the gradients of the leaves `wrt`.

    substituted: what ops send instead, unrounded (`PerturbedRuns.gradients`).
    """
    values: list[float] = []
    totals: dict[str, Array] = {}  # of the squares, by hypot: of a large network no run is kept
    _, found = runs.gradients(wrt, *substituted)
    for value, moved in found:
        values.append(value)
        for path, g in moved.items():
            totals[path] = np.hypot(totals[path], g) if path in totals else np.abs(g)
    floors = {path: _shrunk(total / np.sqrt(runs.count), runs.count) for path, total in totals.items()}
    return NoiseFloor(tensor_floor(np.array(values)), floors)


def tensor_floor(deviations: Array) -> TensorFloor:
    """Each element's spread, shrunk towards its row's: a small sample alone would call too many elements quiet.

    A vector has no rows, and its elements may differ in scale, so there each stands for itself.
    """
    return _shrunk(rms(deviations), len(deviations))


def _shrunk(spread: Array, runs: int) -> TensorFloor:
    elements, largest = spread, float(np.max(spread, initial=0.0))
    if spread.ndim > 1 and 0 < largest < np.inf:
        squares = (spread / largest) ** 2
        row = np.mean(squares, axis=tuple(range(1, spread.ndim)), keepdims=True)
        elements = largest * np.sqrt((runs * squares + SHRINKAGE * row) / (runs + SHRINKAGE))
    return TensorFloor(norm(spread), elements, runs)


class Spread:
    """The floor of one result, from its deviations in one run after another, none of which is kept.

    Deviations that are alike in all runs are no spread: the result jumps at this very point, and they are measured from
    where it jumps to.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.runs, self._total, self._mean = 0, np.zeros(shape), np.zeros(shape)

    def add(self, deviation: Array) -> None:
        self.runs += 1
        self._total = np.hypot(self._total, deviation)  # squares would under- and overflow
        self._mean = self._mean + (deviation - self._mean) / self.runs

    def floor(self) -> TensorFloor:
        """NaN where there were no runs."""
        if not self.runs:
            return TensorFloor(float("nan"), np.full(self._total.shape, np.nan), 0)
        spread = self._total / np.sqrt(self.runs)
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = np.where(spread > 0, np.abs(self._mean) / spread, 0.0)
        jumps = (alike > ALIKE) & (self.runs > 2)
        return _shrunk(np.where(jumps, spread * np.sqrt(np.maximum(1 - alike**2, 0.0)), spread), self.runs)
