"""A candidate in a process of its own, which rests but for its turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import NotAlone, Prepared
from gradwitness.run.isolated import Answering, Isolated, isolate, start
from gradwitness.settings import Settings
from gradwitness.timing.calls import PHASES, left_to_do, most_memory, seconds

__all__ = ["Worker", "started"]

LEFT = 0.1  # part of a call that may be left to do after it
SOON = 1e-4  # seconds that it may take anyway: caches are cold
TIMEOUT = 600.0  # seconds that preparing, or a turn, may take, where verify was given none


def started(backends: Mapping[str, str], settings: Settings, threads: int) -> dict[str, Answering | Exception]:
    """A process for each label, which has imported its backend's framework, or why there is none. They start at the
    same time, as this takes longest and is not timed."""
    settings = replace(settings, timeout=settings.timeout or TIMEOUT)

    def one(backend: str) -> Answering | Exception:
        try:
            return start(backend, settings, threads=threads)
        except Exception as error:  # noqa: BLE001  # one's failure never costs the others' times
            return error

    with ThreadPoolExecutor(max(len(backends), 1)) as pool:
        return dict(zip(backends, pool.map(one, backends.values()), strict=True))


class Worker:
    """One candidate in such a process, with as many threads as every other.

    leaves: as they lie in that process. phases: those that it can run; alone: why it cannot run its backward alone,
    empty if it can.
    """

    def __init__(
        self, answering: Answering, candidate: Candidate, problem: Problem, dtype: str, device: str, settings: Settings
    ) -> None:
        self._isolated: Isolated = isolate(candidate, problem, dtype, device, settings, answering=answering)
        self.leaves = self._isolated.place(problem.primals)
        self._isolated.wait(self.leaves)
        self.setup_seconds = self._isolated.setup_seconds
        self._expect_honest_wait()
        self.alone: str = self._isolated.apply(why_not_alone)
        self.phases = tuple(phase for phase in PHASES if phase != "backward" or not self.alone)
        self._isolated.pause()

    def _expect_honest_wait(self) -> None:
        """Raise GradwitnessError for a backend whose `wait` returns before the device has finished."""
        left: float = self._isolated.apply(left_to_do, self.leaves)
        call = min(self._isolated.apply(seconds, self.leaves, "forward_backward", 3))
        if left > max(LEFT * call, SOON):
            raise GradwitnessError(
                f"its wait() returns early: a gradient takes {left:.2g} s more to arrive after a call of {call:.2g} s"
            )

    def seconds(self, phase: str, count: int) -> list[float]:
        """What each of so many calls took."""
        with self._awake():
            found: list[float] = self._isolated.apply(seconds, self.leaves, phase, count)
            return found

    def most_memory(self, phase: str) -> int | None:
        """The most that a call takes beyond what the process holds, in bytes; None where that is not known."""
        with self._awake():
            found: int | None = self._isolated.apply(most_memory, self.leaves, phase)
            return found

    def apply(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of a module makes of the Prepared in this process."""
        with self._awake():
            return self._isolated.apply(function, *args)

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
