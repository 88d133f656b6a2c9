"""What rounding may explain of a black box: the spread of its gradients as its inputs are jittered by an ulp or so.

In float64, jittered as the dtype on trial would round, the inputs show how sensitive the gradients are, and
nothing of what is rounded further inside. In the dtype's own arithmetic each run rounds differently inside as
well. Neither is complete, so a gradient is allowed more of these floors than of those of `noise_floor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.arithmetic import AMPLIFICATION
from gradwitness.dtypes import find_dtype
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.noise_floor import NoiseFloor, TensorFloor, tensor_floor
from gradwitness.evidence.norms import norm

__all__ = ["Jitter"]

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]
Result = tuple[float, Mapping[str, Array]]  # the loss, and the gradients
RUNS = 8
OWN_SIZE = 2.0  # units of roundoff: in its own arithmetic a dtype rounds away most of a jitter of one


@dataclass(frozen=True)
class Jitter:
    """Every floating leaf x becomes x (1 + u z), with z standard normal and u the unit roundoff of `dtype`.

    Whole numbers in leaves that are not differentiated stay: every dtype holds them exactly, and many
    are labels, masks or exponents. differentiated: the paths of those that are. inside: the black box
    runs in the arithmetic of `dtype`, so that its roundings show; it runs in float64 if not. A run that
    raises, as its inputs have left the loss's domain, is left out.
    """

    dtype: str
    inside: bool
    differentiated: Collection[str]
    seed: tuple[int, ...]

    def floor(self, run: Callable[[Leaves], Result], leaves: Leaves, result: Result) -> NoiseFloor:
        """The spread of the loss and of each gradient around `result`, with one rounding of each result added."""
        loss, gradients = result
        results = list(self._runs(run, leaves))
        tensors = {path: self._floor([found[path] - g for _, found in results], g) for path, g in gradients.items()}
        return NoiseFloor(self._floor([np.array(value - loss) for value, _ in results], np.array(loss)), tensors)

    def value_floor(self, run: Callable[[Leaves], float], leaves: Leaves) -> TensorFloor:
        """The spread of the loss alone."""
        loss = run(leaves)
        return self._floor([np.array(value - loss) for value in self._runs(run, leaves)], np.array(loss))

    def _runs(self, run: Callable[[Leaves], Any], leaves: Leaves) -> Iterator[Any]:
        size = find_dtype(self.dtype).unit_roundoff * (OWN_SIZE if self.inside else self._amplification)
        for number in range(RUNS):
            rng = np.random.default_rng([*self.seed, number])
            jittered = {path: self._moved(path, x, size, rng) for path, x in leaves.items()}
            try:
                yield run(jittered)
            except NoAnswerError:
                raise
            except Exception:  # noqa: BLE001  # a domain error may be any
                continue

    def _moved(self, path: str, x: Array, size: float, rng: np.random.Generator) -> Array:
        moved: Array = x * (1 + size * rng.standard_normal(x.shape))
        return moved if path in self.differentiated else np.where(x == np.round(x), x, moved)

    @property
    def _amplification(self) -> float:
        return AMPLIFICATION if self.dtype == "float64" and not self.inside else 1.0

    def _floor(self, deviations: Sequence[Array], gradient: Array) -> TensorFloor:
        """A result that no input moves (1 / 3, say) is rounded all the same, once."""
        if not deviations:
            return TensorFloor(math.nan, np.full(gradient.shape, math.nan), 0)
        found = find_dtype(self.dtype)
        spread = tensor_floor(np.array(deviations) / self._amplification)
        once = found.unit_roundoff * np.abs(gradient) + np.where(gradient == 0, 0.0, found.smallest_subnormal)
        return TensorFloor(float(np.hypot(spread.norm, norm(once))), np.hypot(spread.elements, once), spread.runs)
