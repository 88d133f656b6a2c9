"""Drawing parameters: generic values, scaled so that gradients stay alive at any depth.

No scale is 1 and no bias 0, as they are where training starts: a backward pass that forgets a scale
or a bias would be right there.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from gradwitness.dtypes import Array

__all__ = ["affine", "alternating", "bias", "dense", "generator", "scale", "weight"]

Generator = np.random.Generator


def generator(name: str, seed: int) -> Generator:
    """The random numbers of a network: the same for a name and a seed on every machine."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def weight(rng: Generator, *shape: int, gain: float = 1.0) -> Array:
    """Normal weights of shape (out, ...), of standard deviation gain / sqrt(fan_in)."""
    return rng.normal(0.0, gain / math.sqrt(math.prod(shape[1:])), shape)


def bias(rng: Generator, size: int) -> Array:
    """Shape (size,): magnitudes in [0.05, 0.4], signs at random."""
    magnitude = rng.uniform(0.05, 0.4, size)
    return np.where(rng.random(size) < 0.5, -magnitude, magnitude)


def scale(rng: Generator, size: int) -> Array:
    """Shape (size,): values in [0.6, 1.5], the gamma of a normalisation."""
    return rng.uniform(0.6, 1.5, size)


def dense(rng: Generator, inputs: int, outputs: int, gain: float = 1.0) -> dict[str, Array]:
    """`weight` (outputs, inputs) and `bias` (outputs,) of a linear layer."""
    return {"weight": weight(rng, outputs, inputs, gain=gain), "bias": bias(rng, outputs)}


def affine(rng: Generator, size: int) -> dict[str, Array]:
    """`weight` and `bias`, both (size,), of a normalisation."""
    return {"weight": scale(rng, size), "bias": bias(rng, size)}


def alternating(width: int, depth: int) -> list[int]:
    """Widths of `depth` layers: width and three quarters of it by turns, so that no weight is square."""
    return [width if i % 2 == 0 else max(2, 3 * width // 4) for i in range(depth)]
