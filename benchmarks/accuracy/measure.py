"""A time of gradwitness and that of a loop, by turns in one process, as processes differ among themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.accuracy.loops import LOOPS
from gradwitness.networks import network
from gradwitness.networks.sizes import sizes
from gradwitness.problem import Problem
from gradwitness.protocol import Prepared
from gradwitness.timing.calls import seconds

__all__ = ["DTYPE", "PART", "SECONDS", "Agreement", "by_turns", "compared", "problem_of"]

DTYPE = "float32"
PART, SECONDS = 0.03, 5e-6  # of the loop's time; whichever is larger
TURN, CALLS = 0.001, 5  # seconds of a turn, and the most calls of it: so short that what slows one slows both
FEWEST, MOST = 20, 1000  # turns
Runs = Callable[[int], list[float]]


@dataclass(frozen=True)
class Agreement:
    """Median seconds of gradwitness and of the loop, and the median of their differences, turn by turn."""

    ours: float
    loop: float
    difference: float

    @property
    def allowed(self) -> float:
        return max(PART * self.loop, SECONDS)

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.allowed


def by_turns(ours: Runs, loop: Runs, budget: float) -> Agreement:
    """ours, loop: functions that give the seconds of so many calls. Whoever is first is last in the next round.

    budget: about the seconds of calls in all.
    """
    each = median(min(ours(1) + loop(1)) for _ in range(3))
    count = min(max(round(TURN / each), 1), CALLS)
    pairs = []
    for number in range(min(max(round(budget / (2 * count * each)), FEWEST), MOST)):
        order = (ours, loop) if number % 2 == 0 else (loop, ours)
        found = {run: median(run(count)) for run in order}
        pairs.append((found[ours], found[loop]))
    ours_of, loop_of = zip(*pairs, strict=True)
    return Agreement(median(ours_of), median(loop_of), median(a - b for a, b in pairs))


def problem_of(size: str) -> Problem:
    return network("mlp", **sizes("mlp", size)).rounded(DTYPE)


def compared(prepared: Prepared, backend: str, size: str, budget: float) -> Agreement:
    """The backward of a Prepared of this problem, and that of the backend's loop, in the process of both."""
    problem = problem_of(size)
    leaves: Any = prepared.place(problem.primals)
    once = LOOPS[backend](problem)
    return by_turns(
        lambda count: seconds(prepared, leaves, "backward", count),
        lambda count: [once() for _ in range(count + 2)][2:],  # the first two warm up, as ours do
        budget,
    )
