"""Is what differs the work of an arithmetic with fewer bits, and of nothing else?

That is asked of a candidate as a whole, its losses and all of its gradients: hardware that takes TF32 instead of
float32 takes it in every matrix product, or in all of one kind or size. What that moves must have moved, as far as
foretold, and nothing farther.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwitness.arithmetic import Reduction
from gradwitness.dtypes import Array
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.prediction import Prediction
from gradwitness.evidence.reach import node_reach, over
from gradwitness.verdict.verdicts import Judgement, Verdict

__all__ = ["Moved", "recognised"]

SUSPECT = frozenset({Verdict.DISAGREE, Verdict.DIFFERENT_LOSS})
UNEXPLAINED = 1 / 2  # of the squares of all that differs may be left by what is foretold
TOLD_APART = 4  # ordinary floors that growing sums must move a gradient by, to be told from it


@dataclass(frozen=True)
class Moved:
    """A loss or a gradient that differs by `error` from `reference`, both of its shape.

    ordinary: what rounding in the dtype explains of it. prediction: what the reduced arithmetic makes of it.
    """

    reference: Array
    error: Array
    ordinary: TensorFloor
    prediction: Prediction

    @property
    def left(self) -> Array:
        """What is not foretold."""
        return np.asarray(self.error - self.prediction.shift)

    @property
    def is_explained(self) -> bool:
        """Whether what is left is within reach, by norm and by element."""
        return _is_within(self.left, self.prediction.floor)

    @property
    def limit(self) -> float:
        """The smallest error by norm, beside what the arithmetic does, that would have been seen."""
        floor = self.prediction.floor
        return node_reach(floor).norm * floor.norm


def recognised(
    judgements: Mapping[str, Judgement],
    under: Callable[[Reduction], tuple[list[Moved], dict[str, Moved]]],
    reductions: Iterable[Reduction],
    *,
    advice: str,
) -> dict[str, Judgement]:
    """The judgements by path, where a reduction explains the candidate with `reduced-precision` instead of
    `disagree` and `different-loss`. Of several the one that leaves the least names it.

    under: what differs, the losses and the gradients by path, with what this reduction makes of it; asked for only
    where something differs. reductions: those to try, finest first. advice: how to avoid it.
    """
    if not any(judgement.verdict in SUSPECT for judgement in judgements.values()):
        return dict(judgements)
    standing: list[tuple[float, Reduction, dict[str, Moved]]] = []
    for reduction in reductions:
        losses, gradients = under(reduction)
        all_moved = [*losses, *gradients.values()]
        if _stands(reduction, all_moved):
            standing.append((_left(all_moved), reduction, gradients))
    if not standing:
        return dict(judgements)
    _, reduction, gradients = min(standing, key=lambda found: found[0])
    return {
        path: judgement.instead(Verdict.REDUCED_PRECISION, _message(reduction, gradients[path], advice))
        if judgement.verdict in SUSPECT
        else judgement
        for path, judgement in judgements.items()
    }


def _is_within(error: Array, floor: TensorFloor) -> bool:
    limits = node_reach(floor)
    by_norm = float(over(norm(error), floor.norm)) <= limits.norm
    return by_norm and bool(np.all(over(np.abs(error), floor.elements) <= limits.element))


def _stands(reduction: Reduction, all_moved: Sequence[Moved]) -> bool:
    if not all(moved.is_explained for moved in all_moved):
        return False
    return _is_foretold(all_moved) if reduction.operands is not None else _has_grown(all_moved)


def _is_foretold(all_moved: Sequence[Moved]) -> bool:
    """Whether the foretold errors are those that are there: they explain at least half of the squares of what differs.

    Where the runs scatter, as deep inside a narrow network, almost anything is within their reach; something that
    differs for another reason is not foretold. What they agree on counts, each loss and gradient alike, and it must be
    at least half of what the arithmetic moves. It need not move all: a library may reduce large products only.
    """
    apart = [m for m in all_moved if _is_told_apart(m)]
    told = [m for m in apart if norm(m.prediction.shift) > m.prediction.floor.norm]
    differing = sum((norm(m.error) / m.prediction.size.norm) ** 2 for m in told)
    return bool(told) and 2 * len(told) >= len(apart) and _left(told) <= UNEXPLAINED * differing


def _left(all_moved: Sequence[Moved]) -> float:
    """The squares of what is not foretold, each by the square of what the arithmetic moves it by."""
    return sum(float(over(norm(m.left), m.prediction.size.norm)) ** 2 for m in all_moved)


def _has_grown(all_moved: Sequence[Moved]) -> bool:
    """Whether each loss and gradient that growing sums would tell apart is nearer to their floor than to the ordinary
    one, and within it (sums of bfloat16, one term after another, were measured to reach 0.15 to 0.61 of it), and the
    others agree."""
    return any(_is_told_apart(m) for m in all_moved) and all(
        np.sqrt(m.prediction.size.norm * m.ordinary.norm) < norm(m.error) <= m.prediction.size.norm
        if _is_told_apart(m)
        else _is_within(m.error, m.ordinary)
        for m in all_moved
    )


def _is_told_apart(moved: Moved) -> bool:
    return moved.prediction.size.norm > TOLD_APART * moved.ordinary.norm


def _message(reduction: Reduction, moved: Moved, advice: str) -> str:
    size, floor = norm(moved.reference), moved.prediction.floor
    left = float(over(norm(moved.left), floor.norm))
    seen = f"an error of {moved.limit / size:.1g} of its norm would have been seen" if size else ""
    if 0 < size <= moved.limit:
        seen = "a zero would pass"
    parts = [f"as {reduction.name} would be: {left:.2g} of that floor", seen, advice]
    return "; ".join(part for part in parts if part)
