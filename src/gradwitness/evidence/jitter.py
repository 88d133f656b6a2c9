"""What rounding may explain of a black box: the spread of its gradients as its inputs are jittered by an ulp or so.

In float64, jittered as the dtype on trial would round, the inputs show how sensitive the gradients are, and
nothing of what is rounded further inside. In the dtype's own arithmetic each run rounds differently inside as
well. Neither is complete, so a gradient is allowed more of these floors than of those of `noise_floor`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.arithmetic import AMPLIFICATION
from gradwitness.dtypes import Array, find_dtype
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.noise_floor import NoiseFloor, Spread, TensorFloor
from gradwitness.evidence.norms import norm

__all__ = ["Jitter"]

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

    def floor(self, run: Callable[[Leaves], Result], leaves: Leaves) -> NoiseFloor:
        """The spread of the loss and of each gradient, with one rounding of each result added."""
        loss, gradients = run(leaves)
        value, spreads = Spread(()), {path: Spread(g.shape) for path, g in gradients.items()}
        for moved, found in self._runs(run, leaves):
            value.add(np.array(moved - loss) / self._amplification)
            for path, spread in spreads.items():
                spread.add((found[path] - gradients[path]) / self._amplification)
        tensors = {path: self._rounded(spread.floor(), gradients[path]) for path, spread in spreads.items()}
        return NoiseFloor(self._rounded(value.floor(), np.array(loss)), tensors)

    def value_floor(self, run: Callable[[Leaves], float], leaves: Leaves) -> TensorFloor:
        """The spread of the loss alone."""
        loss, spread = run(leaves), Spread(())
        for moved in self._runs(run, leaves):
            spread.add(np.array(moved - loss) / self._amplification)
        return self._rounded(spread.floor(), np.array(loss))

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

    def _rounded(self, spread: TensorFloor, result: Array) -> TensorFloor:
        """A result that no input moves (1 / 3, say) is rounded all the same, once."""
        found = find_dtype(self.dtype)
        once = found.unit_roundoff * np.abs(result) + np.where(result == 0, 0.0, found.smallest_subnormal)
        return TensorFloor(float(np.hypot(spread.norm, norm(once))), np.hypot(spread.elements, once), spread.runs)
