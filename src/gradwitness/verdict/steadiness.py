"""Is the answer to the same call the same?"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness.evidence.norms import norm

__all__ = ["unsteady"]

Array = np.ndarray[Any, Any]


def unsteady(first: Array | None, second: Array | None) -> str:
    """How two answers to the same call differ; empty if they do not, bit by bit."""
    if first is None or second is None or first.shape != second.shape:
        return "" if first is None and second is None else "the same call twice gave two different kinds of answer"
    if first.tobytes() == second.tobytes():
        return ""
    error, size = norm(second.astype(np.float64) - first), norm(first)
    part = f"{error / size:.2g} of its norm" if size else f"{error:.2g}"
    return f"the same call twice gave two answers, {part} apart: seed what is random, and keep no state between calls"
