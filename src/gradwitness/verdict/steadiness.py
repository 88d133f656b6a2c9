"""Is the answer to the same call the same?

Not bit by bit: threads that add to one sum in no fixed order (an embedding's gradient, compiled) round it
differently each time. What is random, or remembers, differs by far more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwitness.dtypes import find_dtype
from gradwitness.evidence.norms import norm

__all__ = ["unsteady"]

Array = np.ndarray[Any, Any]
ROUNDINGS = 256  # units of roundoff of the largest gradient that sums in no fixed order may differ by
MOST = 0.05  # and in no dtype more than this part of it


def unsteady(
    first: tuple[float, Mapping[str, Array | None]], second: tuple[float, Mapping[str, Array | None]], dtype: str
) -> dict[str, str]:
    """By path, how two answers (loss, gradients) to the same call differ; empty where by rounding at most."""
    part = min(ROUNDINGS * find_dtype(dtype).unit_roundoff, MOST)
    (loss, gradients), (loss_again, again) = first, second
    by_loss = _apart(np.array(loss), np.array(loss_again), part * abs(loss))
    allowance = part * max((norm(g) for g in gradients.values() if g is not None), default=0.0)
    return {path: _apart(g, again.get(path), allowance) or by_loss for path, g in gradients.items()}


def _apart(first: Array | None, second: Array | None, allowance: float) -> str:
    if first is None or second is None or first.shape != second.shape:
        return "" if first is None and second is None else "the same call twice gave two different kinds of answer"
    if first.tobytes() == second.tobytes():
        return ""
    error, size = norm(second.astype(np.float64) - first), norm(first)
    if error <= allowance:
        return ""
    apart = f"{error / size:.2g} of its norm" if size else f"{error:.2g}"
    return f"the same call twice gave two answers, {apart} apart: seed what is random, and keep no state between calls"
