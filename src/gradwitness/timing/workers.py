"""A candidate in a process of its own, which rests but for its turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gradwitness.errors import GradwitnessError
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import NotAlone, Prepared
from gradwitness.run.isolated import Isolated, isolate
from gradwitness.settings import Settings
from gradwitness.timing.calls import PHASES, left_to_do, most_memory, seconds

__all__ = ["Worker"]

LEFT = 0.1  # part of a call that may be left to do after it
SOON = 1e-4  # seconds that it may take anyway: caches are cold
TIMEOUT = 600.0  # seconds that preparing, or a turn, may take, where verify was given none


class Worker:
    """One candidate, with as many threads as every other.

    phases: those that it can run; alone: why it cannot run its backward alone, empty if it can.
    """

    def __init__(
        self, candidate: Candidate, problem: Problem, dtype: str, device: str, settings: Settings, threads: int
    ) -> None:
        settings = replace(settings, timeout=settings.timeout or TIMEOUT)
        self._isolated: Isolated = isolate(candidate, problem, dtype, device, settings, threads=threads)
        self._leaves = self._isolated.place(problem.primals)
        self._isolated.wait(self._leaves)
        self.setup_seconds = self._isolated.setup_seconds
        self._expect_honest_wait()
        self.alone: str = self._isolated.apply(why_not_alone)
        self.phases = tuple(phase for phase in PHASES if phase != "backward" or not self.alone)
        self._isolated.pause()

    def _expect_honest_wait(self) -> None:
        """Raise GradwitnessError for a backend whose `wait` returns before the device has finished."""
        left: float = self._isolated.apply(left_to_do, self._leaves)
        call = min(self._isolated.apply(seconds, self._leaves, "forward_backward", 3))
        if left > max(LEFT * call, SOON):
            raise GradwitnessError(
                f"its wait() returns early: a gradient takes {left:.2g} s more to arrive after a call of {call:.2g} s"
            )

    def seconds(self, phase: str, count: int) -> list[float]:
        """What each of so many calls took."""
        with self._awake():
            found: list[float] = self._isolated.apply(seconds, self._leaves, phase, count)
            return found

    def most_memory(self, phase: str) -> int | None:
        """The most that a call takes beyond what the process holds, in bytes; None where that is not known."""
        with self._awake():
            found: int | None = self._isolated.apply(most_memory, self._leaves, phase)
            return found

    def end(self) -> None:
        self._isolated.end()

    @contextmanager
    def _awake(self) -> Iterator[None]:
        self._isolated.resume()
        try:
            yield
        finally:
            self._isolated.pause()


def why_not_alone(prepared: Prepared) -> str:
    """Why a candidate cannot run its backward without its forward, in a few words; empty if it can."""
    return prepared.not_alone if isinstance(prepared, NotAlone) else ""
