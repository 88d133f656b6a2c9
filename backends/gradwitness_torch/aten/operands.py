"""The operands of aten's ops, as rules take them: traced values, NumPy arrays for what does not depend on what is
differentiated, and Python scalars."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.compositions import as_float
from gradwitness.ops.value import Value

__all__ = ["Operand", "number", "scaled"]

Operand = Any


def scaled(x: Operand, alpha: float) -> Operand:
    if alpha == 1:
        return x
    return ops.multiply(number(x), alpha) if isinstance(x, Value) else np.multiply(number(x), alpha)


def number(x: Operand) -> Operand:
    """What is counted with as a float: truth as 1.0 and 0.0."""
    if isinstance(x, Value):
        return as_float(x) if x.dtype == "bool" else x
    return np.asarray(x, np.float64) if isinstance(x, np.ndarray) else x
