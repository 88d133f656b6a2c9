"""The layers of the corpus, one module per family, each with a backward pass written by hand."""

from __future__ import annotations

from types import ModuleType

from benchmarks.sensitivity.layers import (
    activation,
    attention,
    convolution,
    dense,
    embedding,
    fan_out,
    loss,
    normalization,
    pooling,
    recurrent,
)
from benchmarks.sensitivity.layers.layer import Layer

__all__ = ["FAMILIES", "LAYERS", "Layer", "family"]

_MODULES: tuple[ModuleType, ...] = (
    dense,
    activation,
    normalization,
    convolution,
    pooling,
    recurrent,
    attention,
    embedding,
    loss,
    fan_out,
)
LAYERS: dict[str, type[Layer]] = {
    name: getattr(module, name) for module in _MODULES for name in module.__all__ if name != "Layer"
}


def family(layer: str) -> str:
    """The module in which a layer stands: `fan_out`."""
    return LAYERS[layer].__module__.rpartition(".")[2]


FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(map(family, LAYERS)))
