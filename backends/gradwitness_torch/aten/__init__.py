"""What torch's aten ops are in the vocabulary: the rules by which a loss is captured, a file for each family.

Operands are traced values, NumPy arrays for tensors that do not depend on what is differentiated, and Python scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradwitness_torch.aten import elementwise, layers, linear_algebra, reductions, shapes
from gradwitness_torch.aten.linear_algebra import APART, FROM_RESULTS
from gradwitness_torch.aten.moves import DETACHED, IDENTITIES, MOVES, SHAPE_ALONE, by_labels
from gradwitness_torch.aten.shapes import PARTLY_DETACHED

__all__ = [
    "APART",
    "DETACHED",
    "FROM_RESULTS",
    "IDENTITIES",
    "MOVES",
    "PARTLY_DETACHED",
    "RULES",
    "SHAPE_ALONE",
    "by_labels",
]

RULES: dict[str, Callable[..., Any]] = (
    elementwise.RULES | reductions.RULES | shapes.RULES | layers.RULES | linear_algebra.RULES
)
