"""What a layer of the corpus is: a forward pass, and a backward pass written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Array", "Layer", "softmax"]

Array = Any  # of whichever library runs it


class Layer:
    """A layer as people write it: `forward` gives what comes out and what `backward` needs of it.

    forward(xp, *inputs) -> (y, saved); backward(xp, saved, g) -> the gradient of sum(g * y) by each floating
    input. xp is the array library (`arrays.Namespace`). floats, integers: the inputs in order, with their
    shapes in letters; an integer input adds, after a bar, the letter of the size that it stays below. data:
    those inputs whose scale and offset the cells vary; the others are weights. sizes: of the letters; n is the
    batch, and `wide` has those of larger cells. fewest: the smallest batch that the layer is made for.
    smooth: whether it has a derivative everywhere.
    """

    floats: ClassVar[Mapping[str, str]]
    integers: ClassVar[Mapping[str, str]] = {}
    data: ClassVar[tuple[str, ...]] = ("x",)
    sizes: ClassVar[Mapping[str, int]]
    wide: ClassVar[Mapping[str, int]]
    fewest: ClassVar[int] = 1
    smooth: ClassVar[bool] = True

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        raise NotImplementedError

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        raise NotImplementedError


def softmax(xp: Any, x: Array) -> Array:
    """Over the last axis."""
    e = xp.exp(x - xp.amax(x, -1)[..., None])
    return e / e.sum(axis=-1)[..., None]
