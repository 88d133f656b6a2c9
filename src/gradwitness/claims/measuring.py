"""What claims are measured with: candidates that were verified, by turns in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median as middle
from typing import Any

from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import ForwardMode, Prepared
from gradwitness.report import Report
from gradwitness.run.progress import Progress
from gradwitness.settings import Settings
from gradwitness.timing.calls import most_beyond
from gradwitness.timing.engine import timings
from gradwitness.timing.records import Timing
from gradwitness.timing.roofline import Machine
from gradwitness.timing.statistics import Interval, ratio
from gradwitness.timing.workers import Worker, started
from gradwitness.verification import verify

__all__ = ["Bench", "Measured", "memory_without_tape", "ratio_of", "seconds_without_tape"]

REPEATS, SOME = 5, 20  # tries of what is a curve, and no ratio; calls of a single pass in each, whose mean counts


@dataclass(frozen=True)
class Measured:
    """A figure, and what it is of. note: what stands beside it, as the points of a curve."""

    what: str
    found: Interval
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """How claims are measured. sizes: of the networks that are timed; backends: those that take part. known, curves:
    what earlier claims have asked for."""

    settings: Settings
    machine: Machine
    backends: Sequence[str]
    sizes: Sequence[str] = ("medium",)
    budget: float = 1.0
    processes: int = 3
    progress: Progress = lambda text: None
    known: dict[str, dict[str, Timing]] = field(default_factory=dict)
    curves: dict[str, dict[int, Any]] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return self.settings.dtypes[0]

    def has(self, *backends: str) -> bool:
        return all(name in self.backends for name in backends)

    def timed(
        self, problem: Problem, backends: Sequence[str], candidates: Mapping[str, Candidate] | None = None
    ) -> dict[str, Timing]:
        """Of a problem, each candidate that agrees, by label. What two claims ask for is timed once."""
        key = repr((problem.name, tuple(backends), sorted(candidates or ())))
        if key not in self.known:
            self.known[key] = self.of(verify(problem, backends=tuple(backends), candidates=candidates, **self.how))
        return self.known[key]

    def of(self, report: Report) -> dict[str, Timing]:
        found = timings(
            report, machine=self.machine, budget=self.budget, processes=self.processes, progress=self.progress
        )
        return {timing.where.candidate: timing for timing in found if timing.times}

    @property
    def how(self) -> dict[str, Any]:
        """As keywords of verify."""
        return {"dtypes": self.dtype, "reference": "differences", "seed": self.settings.seed, "progress": self.progress}

    def asked(self, problem: Problem, backend: str, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of a module makes of a Prepared and its leaves, in a process of its own."""
        with self._worker(problem, backend) as worker:
            return worker.apply(function, worker.leaves, *args)

    @contextmanager
    def _worker(self, problem: Problem, backend: str) -> Iterator[Worker]:
        self.progress(f"{problem.name} {self.dtype}: {backend}")
        settings = replace(self.settings, dtypes=(self.dtype,))
        (answering,) = started({backend: backend}, settings, self.machine.threads).values()
        if isinstance(answering, Exception):
            raise answering
        try:
            yield Worker(answering, Candidate(backend), problem.rounded(self.dtype), self.dtype, "cpu", settings)
        finally:
            answering.end()


def ratio_of(one: Timing, other: Timing, phase: str, of: str | None = None) -> Interval | None:
    """The time of one candidate over that of another, turn by turn; `of`: the phase of the other, if another one. None
    where one has no such phase."""
    mine, theirs = one.samples.get(phase), other.samples.get(of or phase)
    if mine is None or theirs is None:
        return None
    if of is None:
        return ratio(mine, theirs)
    shorter = [min(len(x), len(y)) for x, y in zip(mine, theirs, strict=True)]  # phases have turns of their own
    return ratio(*([x[:n] for x, n in zip(group, shorter, strict=True)] for group in (mine, theirs)))


def seconds_without_tape(prepared: Prepared, leaves: Any, count: int) -> dict[str, float]:
    """What all `count` derivatives take, each way, and a forward pass: in seconds, the middle of a few tries."""
    assert isinstance(prepared, ForwardMode)

    def each(call: Callable[[], Any], times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            prepared.wait(call())
        return (time.perf_counter() - started) / times

    ways: dict[str, tuple[Callable[[], Any], int]] = {  # and how many calls give everything
        "forward": (lambda: prepared.infer(leaves), 1),
        "reverse": (lambda: prepared.forward_backward(leaves), 1),
        "tangents": (lambda: prepared.tangent(leaves, leaves), count),
        "differences": (lambda: prepared.infer(leaves), 2 * count),
    }
    for call, _ in ways.values():
        each(call, 2)  # what is compiled and imported once
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, (call, calls) in ways.items():
            found[name].append(calls * each(call, SOME if calls == 1 else calls))
    return {name: middle(seconds) for name, seconds in found.items()}


def memory_without_tape(prepared: Prepared, leaves: Any) -> dict[str, int] | None:
    """The most bytes of each beyond what the process holds; None where the system does not tell."""
    assert isinstance(prepared, ForwardMode)
    ways: dict[str, Callable[[], Any]] = {
        "inference": lambda: prepared.infer(leaves),
        "forward mode": lambda: prepared.tangent(leaves, leaves),
        "training": lambda: prepared.forward_backward(leaves),
    }
    found = {name: most_beyond(_waited(prepared, call)) for name, call in ways.items()}
    return None if None in found.values() else {name: most for name, most in found.items() if most is not None}


def _waited(prepared: Prepared, call: Callable[[], Any]) -> Callable[[], None]:
    return lambda: prepared.wait(call())
