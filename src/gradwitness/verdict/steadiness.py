"""Is the answer to the same call the same?

Not bit by bit: threads that add to one sum in no fixed order (an embedding's gradient, compiled) round it
differently each time. What is random, or remembers, differs by far more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.norms import norm

__all__ = ["accumulated", "unsteady"]

Answer = tuple[float, Mapping[str, Array | None]]
ADVICE = (
    "seed all random numbers, and keep no state between calls (of a module: module.eval(), or from_module(..., seed=0))"
)
ROUNDINGS = 256  # units of roundoff of the largest gradient that sums in no fixed order may differ by
SAME_GROWTH = 1e-2  # of what one call adds, by which what the next adds may differ
MOST = 0.05  # and in no dtype more than this part of it


def unsteady(
    first: Answer,
    second: Answer,
    dtype: str,
    *,
    how: str = "the same call twice",
    advice: str = ADVICE,
) -> dict[str, str]:
    """By path, how two answers (loss, gradients) to the same question differ; empty where by rounding at most.

    how: what was done between the two; advice: what would mend it.
    """
    part = min(ROUNDINGS * find_dtype(dtype).unit_roundoff, MOST)
    (loss, gradients), (loss_again, again) = first, second
    if _apart(np.array(loss), np.array(loss_again), part * abs(loss)):
        return dict.fromkeys(gradients, f"{how} gave two losses, {loss:.9g} and {loss_again:.9g}: {advice}")
    finite = (np.where(np.isfinite(g), g, 0.0) for g in gradients.values() if g is not None)
    allowance = part * max((norm(g) for g in finite), default=0.0)
    found = {path: _apart(g, again.get(path), allowance) for path, g in gradients.items()}
    return {path: f"{how} gave two answers, {apart}: {advice}" if apart else "" for path, apart in found.items()}


def accumulated(answers: Sequence[Answer]) -> dict[str, str]:
    """By path, whether each of three equal calls adds the same to its gradient; empty where it does not, or the loss
    changes too."""
    if len({loss for loss, _ in answers}) > 1:
        return dict.fromkeys(answers[0][1], "")
    return {path: _growth([gradients[path] for _, gradients in answers]) for path in answers[0][1]}


def _growth(gradients: Sequence[Array | None]) -> str:
    if any(g is None for g in gradients) or len({g.shape for g in gradients if g is not None}) > 1:
        return ""
    first, second, third = (g.astype(np.float64) for g in gradients if g is not None)
    once, more = second - first, (third - second) - (second - first)
    if norm(once) == 0 or not norm(more) <= SAME_GROWTH * norm(once):
        return ""
    return "each call adds the same to its gradient: it accumulates, so let each call begin from zeros"


def _apart(first: Array | None, second: Array | None, allowance: float) -> str:
    if first is None or second is None or first.shape != second.shape:
        return "" if first is None and second is None else "of two kinds"
    if first.tobytes() == second.tobytes():
        return ""
    if not np.array_equal(undefined := ~np.isfinite(first), ~np.isfinite(second)):
        return f"of which one has {int(np.count_nonzero(undefined))} elements that are NaN or infinite"
    first, second = (np.where(undefined, 0.0, x.astype(np.float64)) for x in (first, second))
    error, size = norm(second - first), norm(first)
    if error <= allowance:
        return ""
    return f"{error / size:.2g} of its norm apart" if size else f"{error:.2g} apart"
