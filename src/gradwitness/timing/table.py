"""Times as text: a table for each network, dtype and device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from gradwitness.timing.calls import PHASES
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import Interval

__all__ = ["table"]

HEADER = ("candidate", *(phase.replace("_", "+") for phase in PHASES), "backward ratio", "setup", "memory")
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def table(timings: Sequence[Timing]) -> str:
    """Each time with half the width of its interval; what was not timed with its verdict in place of times."""
    return "\n\n".join(_group(list(group)) for _, group in groupby(timings, lambda timing: _place(timing)))


def _place(timing: Timing) -> tuple[str, str, str, int]:
    return timing.where.network, timing.where.dtype, timing.where.device, timing.threads


def _group(timings: Sequence[Timing]) -> str:
    first = timings[0]
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    where = first.where
    title = f"{where.network}, {first.parameters:,} parameters, {where.dtype}, {where.device}, {threads}"
    body = tabulate([_cells(timing) for timing in timings], HEADER, disable_numparse=True)
    return "\n".join([title, body, *_notes(timings)])


def _cells(timing: Timing) -> list[str]:
    if timing.why:
        return [timing.where.candidate, timing.verdict]
    times = [_time(timing.times[phase]) if phase in timing.times else "-" for phase in PHASES]
    compared = timing.ratios.get("backward") or timing.ratios.get("forward_backward")
    setup = "" if timing.setup_seconds is None else _seconds(timing.setup_seconds)
    return [timing.where.candidate, *times, _ratio(compared), setup, _size(timing.memory)]


def _notes(timings: Sequence[Timing]) -> Iterator[str]:
    for timing in timings:
        if timing.why:
            yield f"{timing.where.candidate} was not timed: {timing.why}"
        elif timing.alone:
            yield f"{timing.where.candidate} has no backward alone: {timing.alone}"


def _time(found: Interval) -> str:
    unit, name = _unit(found.middle)
    return f"{found.middle / unit:.3g} {name} +- {100 * found.spread:.0f}%"


def _seconds(seconds: float) -> str:
    unit, name = _unit(seconds)
    return f"{seconds / unit:.3g} {name}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])


def _ratio(found: Interval | None) -> str:
    return "" if found is None else f"{found.middle:.2f} ({found.low:.2f} to {found.high:.2f})"


def _size(found: int | None) -> str:
    if found is None:
        return "-"
    unit, name = next(((unit, name) for unit, name in BYTES if found >= unit), BYTES[-1])
    return f"{found / unit:.3g} {name}"
