"""What rounding may explain of a black box: the spread of its gradients as its inputs are jittered by an ulp or so.

In float64, jittered as the dtype on trial would round, the inputs show how sensitive the gradients are, and
nothing of what is rounded further inside: so a gradient is allowed more of these floors than of those of
`noise_floor`. In the dtype's own arithmetic each run rounds differently inside as well. That spread would also
excuse a backward which computes in less than its dtype; it is used where nothing else can be: for elements
that are zero by structure (a bias before batch norm), of which float64 too computes nothing but noise.
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
OWN_SIZE = 2.0  # units of roundoff: in its own arithmetic a dtype rounds away most of a jitter of one


@dataclass(frozen=True)
class Jitter:
    """Every floating leaf x becomes x (1 + u z), with z standard normal and u the unit roundoff of `dtype`.

    inside: the black box runs in the arithmetic of `dtype`, so that its roundings show; it runs in float64 if not.
    """

    dtype: str
    inside: bool
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
        size = find_dtype(self.dtype).unit_roundoff * (OWN_SIZE if self.inside else self._amplification)
        for number in range(RUNS):
            rng = np.random.default_rng([*self.seed, number])
            yield {path: x * (1 + size * rng.standard_normal(x.shape)) for path, x in leaves.items()}

    @property
    def _amplification(self) -> float:
        return AMPLIFICATION if self.dtype == "float64" and not self.inside else 1.0

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
