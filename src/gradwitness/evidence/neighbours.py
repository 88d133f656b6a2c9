"""Points near the given one, at which losses are compared again: two different functions may meet at one point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwitness.dtypes import Array, frozen, round_to
from gradwitness.evidence.norms import typical

__all__ = ["Neighbours", "draw_neighbours"]

Primals = Mapping[str, Array]
NEIGHBOURS = 2
DISTANCE = 0.1
REDRAWS = 20


@dataclass(frozen=True, eq=False)
class Neighbours(Sequence[Primals]):
    """Gaussian neighbours that `dtype` can hold.

    They are drawn again whenever they are asked for, as to keep them would take the memory of the network twice.
    draws: the numbers of those that are usable. distance: by which part of its root mean square each tensor moves.
    """

    primals: Primals
    dtype: str
    seed: tuple[int, ...]
    draws: tuple[int, ...] = ()
    distance: float = DISTANCE

    def drawn(self, number: int) -> dict[str, Array]:
        """The neighbour of that number, usable or not."""
        rng = np.random.default_rng([*self.seed, number])
        return {path: frozen(round_to(_moved(x, self.distance, rng), self.dtype)) for path, x in self.primals.items()}

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, place: int) -> Primals:  # type: ignore[override]  # no slices
        return self.drawn(self.draws[place])

    def __iter__(self) -> Iterator[Primals]:
        return map(self.drawn, self.draws)


def draw_neighbours(
    primals: Primals, is_usable: Callable[[Primals], bool], dtype: str, *, seed: Sequence[int]
) -> Neighbours:
    """Two neighbours, or fewer after 20 draws: they are drawn again where they are not usable."""
    around, usable = Neighbours(primals, dtype, tuple(seed)), list[int]()
    for number in range(REDRAWS):
        drawn = around.drawn(number)
        if all(np.isfinite(x).all() for x in drawn.values()) and is_usable(drawn):
            usable.append(number)
        if len(usable) == NEIGHBOURS:
            break
    return Neighbours(primals, dtype, tuple(seed), tuple(usable))


def _moved(x: Array, distance: float, rng: np.random.Generator) -> Array:
    moved: Array = np.asarray(rng.standard_normal(x.shape))
    moved *= distance * typical(x)
    moved += x
    return moved
