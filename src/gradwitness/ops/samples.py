"""Samples: for each op a few sets of operands, drawn from a seed, that conformance and `--ops` run it on.

Values are generic on purpose: no ones, zeros or repeated sizes, which hide bugs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.ops.value import BOOL, FLOAT, INT, Spec

__all__ = ["Draw", "Sample", "boolean", "definite", "dominant", "labels", "positive", "real", "sample"]


@dataclass(frozen=True)
class Draw:
    """How to draw one operand: `shape`, and one of the kinds in `array`."""

    kind: str
    shape: tuple[int, ...]
    scale: float = 1.0
    high: int = 0

    @property
    def spec(self) -> Spec:
        """Shape and kind of what is drawn."""
        return Spec(self.shape, {"labels": INT, "boolean": BOOL}.get(self.kind, FLOAT))

    def array(self, rng: np.random.Generator) -> Array:
        """An array of this kind: float64, int64 or bool."""
        match self.kind:
            case "real":
                return self.scale * rng.standard_normal(self.shape)
            case "positive":
                return self.scale * (0.2 + rng.gamma(2.0, 0.5, self.shape))
            case "dominant":
                return rng.standard_normal(self.shape) + 3 * np.eye(self.shape[-1])
            case "definite":
                root = rng.standard_normal(self.shape)
                return np.eye(self.shape[-1]) + root @ np.swapaxes(root, -1, -2) / self.shape[-1]
            case "labels":
                return rng.integers(0, self.high, self.shape)
            case "boolean":
                return rng.random(self.shape) < 0.6
        raise AssertionError(self.kind)


@dataclass(frozen=True)
class Sample:
    """One call of an op: a draw (or None) per operand, and its attributes."""

    operands: tuple[Draw | None, ...]
    attributes: Mapping[str, Any]


def real(*shape: int, scale: float = 1.0) -> Draw:
    """A draw of floats of this shape: standard normal, times `scale`."""
    return Draw("real", shape, scale)


def positive(*shape: int, scale: float = 1.0) -> Draw:
    """A draw of floats of this shape: gamma-distributed, at least 0.2, times `scale`."""
    return Draw("positive", shape, scale)


def dominant(*shape: int) -> Draw:
    """Square matrices with a large diagonal, far from singular."""
    return Draw("dominant", shape)


def definite(*shape: int) -> Draw:
    """Symmetric positive definite matrices."""
    return Draw("definite", shape)


def labels(*shape: int, high: int) -> Draw:
    """A draw of integers of this shape in [0, high), repeats likely."""
    return Draw("labels", shape, high=high)


def boolean(*shape: int) -> Draw:
    """A draw of booleans of this shape, True with probability 0.6."""
    return Draw("boolean", shape)


def sample(*operands: Draw | None, **attributes: Any) -> Sample:
    """One call of an op, to verify it with: a draw for each array (None: left out), and the attributes."""
    return Sample(operands, attributes)
