"""Times as text: a table for each network, dtype and device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from gradwitness.timing.calls import PHASES
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import Interval

__all__ = ["HEADER", "cells", "groups", "notes", "seconds", "table", "title"]

HEADER = ("candidate", *(phase.replace("_", "+") for phase in PHASES), "backward ratio", "setup", "memory")
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def table(timings: Sequence[Timing]) -> str:
    """Each time with half the width of its interval; what was not timed with its verdict in place of times."""
    return "\n\n".join(map(_group, groups(timings)))


def groups(timings: Sequence[Timing]) -> list[list[Timing]]:
    """Those of one network, dtype and device, with as many threads."""
    return [list(group) for _, group in groupby(timings, _place)]


def _place(timing: Timing) -> tuple[str, str, str, int]:
    return timing.where.network, timing.where.dtype, timing.where.device, timing.threads


def _group(timings: Sequence[Timing]) -> str:
    body = tabulate([cells(timing) for timing in timings], HEADER, disable_numparse=True)
    return "\n".join([title(timings[0]), body, *notes(timings)])


def title(timing: Timing) -> str:
    """What its group has in common."""
    where = timing.where
    threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
    return f"{where.network}, {timing.parameters:,} parameters, {where.dtype}, {where.device}, {threads}"


def cells(timing: Timing) -> list[str]:
    """A cell for each of HEADER; of what was not timed only two, with its verdict."""
    if timing.why:
        return [timing.where.candidate, timing.verdict]
    times = [_time(timing.times[phase]) if phase in timing.times else "-" for phase in PHASES]
    compared = timing.ratios.get("backward") or timing.ratios.get("forward_backward")
    setup = "" if timing.setup_seconds is None else seconds(timing.setup_seconds)
    return [timing.where.candidate, *times, _ratio(compared), setup, _size(timing.memory)]


def notes(timings: Sequence[Timing]) -> Iterator[str]:
    """Why something has no time, a line each."""
    for timing in timings:
        if timing.why:
            yield f"{timing.where.candidate} was not timed: {timing.why}"
        elif timing.alone:
            yield f"{timing.where.candidate} has no backward alone: {timing.alone}"


def _time(found: Interval) -> str:
    unit, name = _unit(found.middle)
    return f"{found.middle / unit:.3g} {name} +- {100 * found.spread:.0f}%"


def seconds(time: float) -> str:
    """In the unit that suits it."""
    unit, name = _unit(time)
    return f"{time / unit:.3g} {name}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])


def _ratio(found: Interval | None) -> str:
    return "" if found is None else f"{found.middle:.2f} ({found.low:.2f} to {found.high:.2f})"


def _size(found: int | None) -> str:
    if found is None:
        return "-"
    unit, name = next(((unit, name) for unit, name in BYTES if found >= unit), BYTES[-1])
    return f"{found / unit:.3g} {name}"
