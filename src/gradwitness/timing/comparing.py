"""Which times of two runs differ by more than chance: beyond both spreads, over several processes.

The same code may be a quarter faster in one process than in another, so turns within one process do not tell how sure a
time is, and intervals of three processes each are disjoint in one of ten pairs by chance alone. What counts is how far
apart the processes of either run lie.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.timing.records import Turns

__all__ = ["Compared", "common_shift", "compared"]

CHANCE = 0.01  # that anything is told of two runs of the same code
LEAST_SPREAD = 0.02  # of the times of processes, however alike a few happen to be
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Compared:
    """One time in an old and a new run.

    shift: the logarithm of the new over the old, each the geometric mean over processes. chance: how large a shift may
    be by chance; infinite where one process each leaves nothing to know it by.
    """

    shift: float
    chance: float

    def is_beyond(self, common: float) -> bool:
        """Whether more than chance is left of the shift beside one that all have in common."""
        return abs(self.shift - common) > self.chance


def compared(times: Mapping[K, tuple[Turns, Turns]]) -> dict[K, Compared]:
    """Each time by its turns in an old and a new run, in seconds, by process.

    Logarithms of the medians of processes are compared by Student's t, with a variance that borrows from the other
    times: the mean of its own and of that of all (Smyth, "Linear models and empirical Bayes methods for assessing
    differential expression", 2004, section 3, with as many prior degrees of freedom as own ones). The chance of
    `CHANCE` is shared by all times (Bonferroni).
    """
    from scipy.stats import t  # here, as it takes half a second

    logs = {key: (_logs(old), _logs(new)) for key, (old, new) in times.items()}
    squares = {key: float(sum(((x - x.mean()) ** 2).sum() for x in pair)) for key, pair in logs.items()}
    freedom = {key: len(old) + len(new) - 2 for key, (old, new) in logs.items()}
    every = max(sum(squares.values()) / max(sum(freedom.values()), 1), LEAST_SPREAD**2)
    quantiles = {n: float(t.isf(CHANCE / 2 / len(logs), 2 * n)) if n else np.inf for n in set(freedom.values())}
    found = {}
    for key, (old, new) in logs.items():
        variance = (squares[key] / max(freedom[key], 1) + every) / 2 * (1 / len(old) + 1 / len(new))
        chance = quantiles[freedom[key]] * float(np.sqrt(variance))
        found[key] = Compared(float(new.mean() - old.mean()), chance)
    return found


def common_shift(shifts: Mapping[Hashable, list[float]]) -> float:
    """What all candidates that took turns have in common: by how much even the one that moved least did, if all moved
    the same way. It is the machine's, or of what they share. 0 for a single candidate, of which nobody can tell.

    shifts: of each candidate, those of its times.
    """
    middles = [float(np.median(values)) for values in shifts.values()]
    if len(middles) < 2 or min(middles) * max(middles) <= 0:
        return 0.0
    return min(middles, key=abs)


def _logs(turns: Turns) -> Array:
    return np.log([np.median(process) for process in turns])
