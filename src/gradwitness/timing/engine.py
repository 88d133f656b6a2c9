"""Verify candidates, and time those that are right, where and as they were verified."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph
from gradwitness.problem import Candidate
from gradwitness.report import Address, Report, Row
from gradwitness.report.case import Case
from gradwitness.report.findings import findings
from gradwitness.run.failing import first_lines
from gradwitness.run.isolated import Answering
from gradwitness.run.progress import Progress
from gradwitness.shards import Part
from gradwitness.timing.calls import PHASES
from gradwitness.timing.document import to_json
from gradwitness.timing.records import Timing, Turns
from gradwitness.timing.roofline import Machine, Work, work
from gradwitness.timing.statistics import median, ratio
from gradwitness.timing.table import table
from gradwitness.timing.turns import by_turns
from gradwitness.timing.workers import Worker, started
from gradwitness.verdict import ACCEPTED
from gradwitness.verification import verify

__all__ = ["BUDGET", "PROCESSES", "Benchmark", "available_threads", "benchmark", "expect_threads", "timings"]

BUDGET = 1.0  # seconds of calls, for each candidate and phase
PROCESSES = 3  # one after another: the same code may be a quarter faster in one than in another


@dataclass(frozen=True)
class Benchmark:
    """What was measured. It is a sequence of Timings, prints as a table, and is falsy if something was not timed.

    timings: one for each candidate, dtype and device. environment: versions, devices, seed and settings.
    shard: which part of a run this is, if that was split.
    """

    timings: tuple[Timing, ...]
    environment: Mapping[str, Any] = field(repr=False)
    shard: Part | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is something, and all of it was timed, as its gradients are right."""
        return bool(self.timings) and not any(timing.why for timing in self.timings)

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[Timing]:
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    def __getitem__(self, number: int) -> Timing:
        return self.timings[number]

    def table(self) -> str:
        """A table for each network, dtype and device."""
        return table(self.timings)

    def json(self) -> str:
        """Everything, with each turn's seconds; `gradwitness diff` compares two of these."""
        return to_json(self.environment, self.timings, None if self.shard is None else self.shard.document())

    def html(self, *, made: Mapping[str, str] | None = None) -> str:
        """The times as a page of HTML: one file that opens in a browser, without a network or a script.

        It shows ratios and times with their intervals as pictures and in tables, and the environment. made: what to say
        of how the page was made, such as {"command": "python times.py"}.

        Raises GradwitnessError where jinja2 or matplotlib is missing (`pip install "gradwitness[html]"`).
        """
        from gradwitness.timing.page import to_page  # what few benchmarks need

        return to_page(self.timings, self.environment, made or {})

    def __repr__(self) -> str:
        return self.table()


def available_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expect_threads(threads: int | None) -> None:
    """Raise GradwitnessError unless there are so many cores. None stands for all of them."""
    most = available_threads()
    if threads is not None and not 1 <= threads <= most:
        raise GradwitnessError(f"threads: expected a number from 1 to {most}, the cores that there are, got {threads}")


def benchmark(
    loss: Any,
    params: Any = None,
    batch: Any = None,
    *,
    threads: int | None = None,
    budget: float = BUDGET,
    processes: int = PROCESSES,
    progress: Progress = lambda text: None,
    **options: Any,
) -> Benchmark:
    """Verify a loss, and time each candidate whose gradients are right: forward, backward alone, and both.

    loss, params, batch, options: those of `gradwitness.verify`.
    threads: how many each candidate may have; by default as many as there are cores.
    budget: seconds of calls, for each candidate and phase.
    processes: in how many each candidate is timed, one after another, as they differ among themselves.
    progress: a function, called with a line of text as each step begins.

    A loss in torch or jax runs on every other backend too, as the graph into which it is read; `backends` chooses.

    Returns a Benchmark: a Timing for each candidate, dtype and device. What does not agree is not timed, and says why.
    Raises GradwitnessError as `verify` does.
    """
    if isinstance(loss, Mapping | Candidate):
        options.setdefault("backends", "all")
    expect_threads(threads)
    report = verify(loss, params, batch, progress=progress, **options)
    found = timings(report, threads=threads, budget=budget, processes=processes, progress=progress)
    return Benchmark(tuple(found), report.environment)


def timings(
    report: Report,
    *,
    threads: int | None = None,
    budget: float = BUDGET,
    processes: int = PROCESSES,
    machine: Machine | None = None,
    progress: Progress = lambda text: None,
) -> Iterator[Timing]:
    """Those of each candidate of a report that this process made, as far as its gradients are right.

    machine: what earlier reports have told of it, if they had as many threads.
    """
    expect_threads(threads)
    machine = machine or Machine(threads or available_threads())
    for case in report.cases:
        for dtype in case.settings.dtypes:
            for device in case.settings.devices:
                rows = [
                    row
                    for row in report.rows
                    if (row.network, row.dtype, row.device) == (case.problem.name, dtype, device)
                ]
                cell = _Cell(case, dtype, device, rows, machine, budget, processes, report.allow)
                yield from _timed(cell, progress)


@dataclass(frozen=True)
class _Cell:
    """A problem in one dtype on one device, and what was found of its candidates."""

    case: Case
    dtype: str
    device: str
    rows: Sequence[Row]
    machine: Machine
    budget: float
    processes: int
    allow: Sequence[str]

    @property
    def parameters(self) -> int:
        return sum(x.size for x in self.case.problem.primals.values())

    @cached_property
    def work(self) -> Mapping[str, Work]:
        """What each phase takes; empty where nobody has read the loss into a graph."""
        problem = self.case.problem
        losses = [problem.loss, *(candidate.loss for candidate in self.case.candidates.values())]
        graph = problem.graph if problem.loss else next((loss for loss in losses if isinstance(loss, Graph)), None)
        return {} if graph is None else work(graph, problem, self.dtype)

    def rows_of(self, label: str) -> list[Row]:
        return [row for row in self.rows if row.candidate == label]

    def timing(self, label: str, **measured: Any) -> Timing:
        rows = self.rows_of(label)
        backend = self.case.candidates[label].backend
        where = Address(self.case.problem.name, label, backend, self.device, self.dtype)
        verdicts = [row.verdict for row in rows]
        worst = str(max(verdicts, key=list(type(verdicts[0])).index)) if verdicts else "not verified"
        return Timing(where, self.parameters, worst, self.machine.threads, **measured)


def _timed(cell: _Cell, progress: Progress) -> Iterator[Timing]:
    """Every candidate: those that are right by turns, in several processes one after another."""
    refused = {label: _why_not(cell, label) for label in cell.case.candidates}
    found: dict[str, _Found] = {}
    for number in range(cell.processes):
        able = [label for label, why in refused.items() if not why]
        refused |= _measured(cell, able, found, f"{number + 1} of {cell.processes}", progress)
    found = {label: one for label, one in found.items() if not refused[label]}
    memory = _memory(cell, list(found), progress)
    for label in cell.case.candidates:
        if refused[label]:
            yield cell.timing(label, why=refused[label])
        else:
            rates = cell.machine.rates(cell.dtype, cell.device)
            facts = found[label].facts(found)
            yield cell.timing(label, memory=memory.get(label), work=cell.work, rates=rates, **facts)


@dataclass
class _Found:
    """What was found of one candidate in its processes."""

    alone: str
    setup_seconds: float
    samples: dict[str, Turns] = field(default_factory=dict)

    def facts(self, others: Mapping[str, _Found]) -> dict[str, Any]:
        every = [other.samples for other in others.values()]
        firsts = {phase: next(samples[phase] for samples in every if phase in samples) for phase in self.samples}
        return {
            **vars(self),
            "times": {phase: median(turns) for phase, turns in self.samples.items()},
            "ratios": {phase: ratio(turns, firsts[phase]) for phase, turns in self.samples.items()},
        }


def _measured(
    cell: _Cell, labels: Sequence[str], found: dict[str, _Found], which: str, progress: Progress
) -> dict[str, str]:
    """Time these candidates in a process each, and add to what was found; who could not be timed, and why."""
    name = f"{cell.case.problem.name} {cell.dtype}, process {which}"
    refused: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        progress(f"{name}: {len(labels)} started")
        for label, answering in _started(cell, labels, stack).items():
            progress(f"{name}: {label}, made ready")
            try:
                workers[label] = _worker(cell, label, answering)
            except Exception as error:  # noqa: BLE001  # one's failure never costs the others' times
                refused[label] = first_lines(error)
        for phase in PHASES:
            able = {label: worker for label, worker in workers.items() if phase in worker.phases}
            progress(f"{name}: {phase.replace('_', ' + ')}, {len(able)} by turns")
            taken = by_turns(able, phase, budget=cell.budget * len(able) / cell.processes) if able else {}
            for label, turns in taken.items():
                known = found.setdefault(label, _Found(workers[label].alone, workers[label].setup_seconds))
                known.samples.setdefault(phase, []).append(turns)
        progress(f"{name}: the machine's rates")
        for label, worker in workers.items():
            with suppress(Exception):  # a backend that has no such product is no limit
                cell.machine.ask(worker, cell.case.candidates[label].backend, cell.dtype, cell.device)
    return refused


def _why_not(cell: _Cell, label: str) -> str:
    """Why a candidate is not to be timed, from what was found of it; empty if its gradients are right."""
    rows = cell.rows_of(label)
    if not rows:
        return "not verified"
    wrong = [row for row in rows if row.verdict not in ACCEPTED and row.verdict not in cell.allow]
    unable = [row for row in rows if row.parameter is None]
    return next(iter(findings(wrong or unable)), "")


def _started(cell: _Cell, labels: Sequence[str], stack: ExitStack) -> Mapping[str, Answering | Exception]:
    """A process for each, which ends with the stack."""
    found = started(
        {label: cell.case.candidates[label].backend for label in labels}, cell.case.settings, cell.machine.threads
    )
    for answering in found.values():
        if isinstance(answering, Answering):
            stack.callback(answering.end)
    return found


def _worker(cell: _Cell, label: str, answering: Answering | Exception) -> Worker:
    if isinstance(answering, Exception):
        raise answering
    problem = cell.case.problem.rounded(cell.dtype)
    return Worker(answering, cell.case.candidates[label], problem, cell.dtype, cell.device, cell.case.settings)


def _memory(cell: _Cell, labels: Sequence[str], progress: Progress) -> dict[str, int | None]:
    """In fresh processes, apart from the timing; nothing for one that fails there."""
    if cell.device != "cpu":
        return {}
    found: dict[str, int | None] = {}
    with ExitStack() as stack:
        progress(f"{cell.case.problem.name} {cell.dtype}: memory")
        for label, answering in _started(cell, labels, stack).items():
            with suppress(Exception):
                found[label] = _worker(cell, label, answering).most_memory("forward_backward")
    return found
