"""Points near the given one, at which losses are compared again: two different functions may meet at one point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gradwitness.dtypes import Array, round_to
from gradwitness.evidence.norms import typical

__all__ = ["draw_neighbours"]

Primals = Mapping[str, Array]
NEIGHBOURS = 2
DISTANCE = 0.1  # of each tensor's rms
REDRAWS = 20


def draw_neighbours(
    primals: Primals, is_usable: Callable[[Primals], bool], dtype: str, *, seed: Sequence[int]
) -> tuple[Primals, ...]:
    """Gaussian neighbours that `dtype` can hold, drawn again where they are not usable: two, or fewer after 20 draws.

    Each tensor moves by a tenth of its root mean square.
    """
    rng = np.random.default_rng([*seed])
    found: list[Primals] = []
    for _ in range(REDRAWS):
        drawn = {path: round_to(_moved(x, rng), dtype) for path, x in primals.items()}
        if all(np.isfinite(x).all() for x in drawn.values()) and is_usable(drawn):
            found.append(drawn)
        if len(found) == NEIGHBOURS:
            break
    return tuple(found)


def _moved(x: Array, rng: np.random.Generator) -> Array:
    moved: Array = x + DISTANCE * typical(x) * rng.standard_normal(x.shape)
    return moved
