"""Times as text: a table for each network, dtype and device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from gradwitness.timing.calls import PHASES
from gradwitness.timing.growth import growth_table
from gradwitness.timing.records import Timing
from gradwitness.timing.units import bytes_text, decimal_text, ratio_text, seconds_text, time_text

__all__ = ["HEADER", "cells", "groups", "notes", "table", "title"]

HEADER = ("candidate", *(phase.replace("_", "+") for phase in PHASES), "backward ratio", "of limit", "setup", "memory")


def table(timings: Sequence[Timing]) -> str:
    """Each time with half the width of its interval; what was not timed with its verdict in place of times. What was
    timed at several sizes has one table for all."""
    plain, grown = ([timing for timing in timings if (timing.grown is None) is is_plain] for is_plain in (True, False))
    return "\n\n".join([*map(_group, groups(plain)), *([growth_table(grown)] if grown else [])])


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
    times = [time_text(timing.times[phase]) if phase in timing.times else "-" for phase in PHASES]
    compared = timing.ratios.get("backward") or timing.ratios.get("forward_backward")
    setup = "" if timing.setup_seconds is None else seconds_text(timing.setup_seconds)
    return [timing.where.candidate, *times, ratio_text(compared), _part(timing), setup, bytes_text(timing.memory)]


def _part(timing: Timing) -> str:
    """Of the machine's limit, the phase whose ratio stands beside it."""
    found = timing.of_limit
    part = found.get("backward", found.get("forward_backward"))
    return "-" if part is None else f"{100 * part:.2g}%"


def notes(timings: Sequence[Timing]) -> Iterator[str]:
    """The machine's limit, and why something has no time, a line each."""
    yield from _limit(timings)
    for timing in timings:
        if timing.why:
            yield f"{timing.where.candidate} was not timed: {timing.why}"
        elif timing.alone:
            yield f"{timing.where.candidate} has no backward alone: {timing.alone}"


def _limit(timings: Sequence[Timing]) -> Iterator[str]:
    for timing in timings:
        if timing.of_limit and timing.rates is not None:
            work, rates = timing.work["backward"], timing.rates
            yield (
                f"limit: {decimal_text(rates.flops)}flop/s in products, {decimal_text(rates.bytes)}B/s in copies; "
                f"backward takes {decimal_text(work.flops)}flop and {decimal_text(work.bytes)}B at least"
            )
            return
