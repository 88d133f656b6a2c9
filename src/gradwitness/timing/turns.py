"""Several candidates by turns, A B C A B C ..., each in a process of its own that rests meanwhile.

A moment in which the machine is busy then hits all alike, and they are compared round by round. What a library's
threads do after a call, such as OpenBLAS's and OpenMP's, which wait for the next one at full speed, costs nobody else:
a process that rests is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from gradwitness.timing.statistics import median, ratio

__all__ = ["FEWEST", "MOST", "Runner", "by_turns"]

TURN = 0.02  # seconds of calls that a turn is to last, so that what starting it costs is little
CALLS = 200  # at most, in a turn
STEADY, TRIES = 0.05, 6  # part that a turn may be faster than the one before; turns until it is called steady anyway
FEWEST, MOST = 8, 60  # rounds
SURE = 0.02  # half of an interval, of its median, that ends the rounds


class Runner(Protocol):
    """What takes a turn."""

    def seconds(self, phase: str, count: int) -> list[float]:
        """What each of so many calls took."""
        ...


def by_turns(runners: Mapping[str, Runner], phase: str, *, budget: float) -> dict[str, list[float]]:
    """The median seconds of a call in each of its turns, by label; all have as many.

    budget: seconds in all, once each is warm; `FEWEST` rounds are taken whatever they cost.
    """
    counts = {label: _calls(_warm(runner, phase)) for label, runner in runners.items()}
    found: dict[str, list[float]] = {label: [] for label in runners}
    spent = 0.0
    for done in range(MOST):
        if done >= FEWEST and (spent > budget or _is_sure(found)):
            break
        for label, runner in runners.items():
            taken = runner.seconds(phase, counts[label])
            spent += sum(taken)
            found[label].append(float(np.median(taken)))
    return found


def _warm(runner: Runner, phase: str) -> float:
    """Seconds of a call, once it no longer gets faster."""
    last = float(np.median(runner.seconds(phase, 1)))
    for _ in range(TRIES):
        now = float(np.median(runner.seconds(phase, _calls(last))))
        if now > (1 - STEADY) * last:
            return min(now, last)
        last = now
    return last


def _calls(seconds: float) -> int:
    return min(max(round(TURN / max(seconds, 1e-9)), 1), CALLS)


def _is_sure(found: Mapping[str, Sequence[float]]) -> bool:
    """Whether each time, and each ratio to the first, is known to `SURE`."""
    first = next(iter(found.values()))
    return all(median([x]).spread < SURE and (x is first or ratio([x], [first]).spread < SURE) for x in found.values())
