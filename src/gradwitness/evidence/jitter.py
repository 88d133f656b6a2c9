"""What rounding may explain of a black box: the spread of its gradients as its inputs are jittered at one ulp or so.

Nothing inside the black box can be perturbed, so what is rounded there is only guessed at: its gradients
are allowed more of these floors than of those of `noise_floor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.noise_floor import AMPLIFICATION, JITTER, NoiseFloor, TensorFloor, tensor_floor
from gradwitness.evidence.norms import norm, rms

__all__ = ["Jitter"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]
RUNS = 8
COARSE_AMPLIFICATION = 16.0  # in the dtype itself a jitter of one ulp would mostly be rounded away


@dataclass(frozen=True)
class Jitter:
    """Every floating leaf x becomes x (1 + u z), with z standard normal and u the unit roundoff of `dtype`.

    wide: the black box runs in float64, and else in `dtype` itself.
    """

    dtype: str
    wide: bool
    seed: tuple[int, ...]

    def floor(self, run: Callable[[Leaves], tuple[float, Mapping[str, Array]]], leaves: Leaves) -> NoiseFloor:
        """The spread of the loss and of each gradient that `run` gives; one rounding of each result is added."""
        loss, gradients = run(leaves)
        results = [run(jittered) for jittered in self._jittered(leaves)]
        tensors = {
            path: self._tensor_floor(np.array([found[path] - g for _, found in results]), g)
            for path, g in gradients.items()
        }
        return NoiseFloor(self._value_floor([value - loss for value, _ in results], loss), tensors)

    def value_floor(self, run: Callable[[Leaves], float], leaves: Leaves) -> float:
        """The spread of the loss alone."""
        loss = run(leaves)
        return self._value_floor([run(jittered) - loss for jittered in self._jittered(leaves)], loss)

    def _jittered(self, leaves: Leaves) -> Iterator[dict[str, Array]]:
        size = find_dtype(self.dtype).unit_roundoff * self._amplification
        for number in range(RUNS):
            rng = np.random.default_rng([*self.seed, number])
            yield {path: x * (1 + size * rng.standard_normal(x.shape)) for path, x in leaves.items()}

    @property
    def _amplification(self) -> float:
        if self.dtype == "float64":
            return AMPLIFICATION
        return 1.0 if self.wide else COARSE_AMPLIFICATION

    def _value_floor(self, deviations: Sequence[float], loss: float) -> float:
        spread = float(rms(np.array(deviations))) / self._amplification
        return math.hypot(spread, find_dtype(self.dtype).unit_roundoff * loss)

    def _tensor_floor(self, deviations: Array, gradient: Array) -> TensorFloor:
        """A result that no input moves (1 / 3, say) is rounded all the same, once."""
        found = find_dtype(self.dtype)
        spread = tensor_floor(deviations / self._amplification)
        once = found.unit_roundoff * np.abs(gradient) + np.where(gradient == 0, 0.0, found.smallest_subnormal)
        return TensorFloor(
            float(np.hypot(spread.norm, norm(once))), np.hypot(spread.elements, once), spread.runs, JITTER
        )
