"""The points: every layer in every regime, from several seeds. On the layers as they are, nobody should object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from benchmarks.sensitivity.arrays import NUMPY
from benchmarks.sensitivity.layers import LAYERS, Layer

__all__ = ["REGIMES", "SEEDS", "Array", "Cell", "Regime", "correct_cells", "gradient_by_hand"]

Array = np.ndarray[Any, Any]
SEEDS = (0, 1)


@dataclass(frozen=True)
class Regime:
    """How the inputs of a cell are drawn: weights are as they are, data are scaled and then moved by the offset.

    single: a batch of one, or the smallest that the layer is made for.
    """

    scale: float = 1.0
    offset: float = 0.0
    wide: bool = False
    single: bool = False


REGIMES: dict[str, Regime] = {
    "generic": Regime(),
    "wide": Regime(wide=True),  # a batch in which many units come near a kink
    "single": Regime(single=True),
    "large": Regime(scale=10.0),  # saturates softmax, tanh and sigmoid
    "small": Regime(scale=1e-3),
    "offset": Regime(offset=100.0),  # data that nobody centred
}


@dataclass(frozen=True)
class Cell:
    """A layer at one point. sizes: letters of the layer's shapes that this cell has otherwise."""

    layer: str
    regime: str = "generic"
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.layer} {self.regime} {self.seed}"

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Of the letters of the layer's shapes."""
        layer, regime = LAYERS[self.layer], REGIMES[self.regime]
        lengths = {**(layer.wide if regime.wide else layer.sizes), **self.sizes}
        return {**lengths, "n": layer.fewest} if regime.single and "n" in lengths else lengths

    @cached_property
    def floats(self) -> dict[str, Array]:
        """The floating inputs by name, in float64: normal, weights divided by the root of their fan-in."""
        layer, rng = LAYERS[self.layer], self._rng(0)
        return {name: self._draw(layer, name, rng.standard_normal(self._shape(s))) for name, s in layer.floats.items()}

    @cached_property
    def integers(self) -> dict[str, Array]:
        """The integer inputs by name. The last one is 0, which stands for what is masked, and the first never is."""
        found, rng = {}, self._rng(1)
        for name, spec in LAYERS[self.layer].integers.items():
            letters, below = spec.split("|")
            found[name] = rng.integers(self.lengths[below], size=self._shape(letters))
            found[name].reshape(-1)[-1] = 0
            found[name].reshape(-1)[0] = 1 + seed_of(self) % (self.lengths[below] - 1)
        return found

    @cached_property
    def cotangent(self) -> Array:
        """Normal, in the shape of what comes out: the loss is its product with that, summed."""
        layer = LAYERS[self.layer]()
        y, _ = layer.forward(NUMPY, *self.floats.values(), *self.integers.values())
        return np.asarray(self._rng(2).standard_normal(np.shape(y)))

    @property
    def elsewhere(self) -> tuple[Array, ...]:
        """The floating inputs of another point nearby, at which a layer may have been called before."""
        rng = self._rng(3)
        return tuple(x + 0.1 * np.std(x) * rng.standard_normal(x.shape) for x in self.floats.values())

    def _draw(self, layer: type[Layer], name: str, normal: Array) -> Array:
        if name in layer.data:
            regime = REGIMES[self.regime]
            return regime.scale * normal + regime.offset
        if normal.ndim > 1 and name.startswith(("w", "u")):
            return np.asarray(normal / np.sqrt(normal[0].size))
        return normal

    def _shape(self, letters: str) -> tuple[int, ...]:
        return tuple(int(letter) if letter.isdigit() else self.lengths[letter] for letter in letters)

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed_of(self), purpose])


def seed_of(cell: Cell) -> int:
    """The same on every machine, another one for each cell."""
    return crc32(str(cell).encode())


def correct_cells() -> list[Cell]:
    """Every layer in every regime, from every seed."""
    return [Cell(layer, regime, seed) for layer in LAYERS for regime in REGIMES for seed in SEEDS]


def gradient_by_hand(layer: Layer, cell: Cell, floats: tuple[Array, ...]) -> tuple[Array, ...]:
    """In NumPy, at these inputs."""
    _, saved = layer.forward(NUMPY, *floats, *cell.integers.values())
    return tuple(map(np.asarray, layer.backward(NUMPY, saved, cell.cotangent)))
