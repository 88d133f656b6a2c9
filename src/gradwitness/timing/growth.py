"""Time and memory as a network grows: the exponents, and the steps after which a longer setup has paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from tabulate import tabulate

from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import CONFIDENCE, Interval
from gradwitness.timing.units import bytes_text, seconds_text, time_text

__all__ = [
    "STEP",
    "exponent",
    "growth_cells",
    "growth_groups",
    "growth_notes",
    "growth_table",
    "growth_title",
    "steps_to_pay",
]

STEP = "forward_backward"  # the phase that a step of training takes
FEWEST = 3  # points of a line that has a spread


def exponent(sizes: Sequence[float], values: Sequence[float]) -> Interval | None:
    """e of value = c size^e: the slope of a line by least squares through the logarithms, with the interval that
    Student's t gives it (Draper and Smith, "Applied Regression Analysis", 3rd ed., 1.4). None for fewer than 3 points,
    and where a value is not positive."""
    if len(sizes) < FEWEST or min(values) <= 0:
        return None
    from scipy import stats  # here, as it takes half a second

    x, y, free = np.log(sizes), np.log(values), len(sizes) - 2
    slope, constant = np.polyfit(x, y, 1)
    error = np.sqrt(np.sum((y - slope * x - constant) ** 2) / free / np.sum((x - x.mean()) ** 2))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, free) * error)
    return Interval(float(slope), float(slope - reach), float(slope + reach))


def steps_to_pay(longer: Timing, other: Timing) -> Interval | None:
    """After how many steps the candidate with the longer setup has made up for it, by forward and backward together.
    None if it never does; an infinite end where its steps may be no faster."""
    if longer.setup_seconds is None or other.setup_seconds is None:
        return None
    extra = max(longer.setup_seconds - other.setup_seconds, 0.0)
    mine, theirs = longer.times[STEP], other.times[STEP]
    middle, least, most = theirs.middle - mine.middle, theirs.low - mine.high, theirs.high - mine.low
    if middle <= 0:
        return None
    return Interval(extra / middle, extra / most, extra / least if least > 0 else float("inf"))


def growth_table(timings: Sequence[Timing]) -> str:
    """Of what was timed at several sizes: a table for each network, dtype and device, and what it comes to."""
    return "\n\n".join(map(_text, growth_groups(timings)))


def growth_groups(timings: Sequence[Timing]) -> list[list[Timing]]:
    """Those of one network, along one axis, in one dtype on one device."""
    return [list(group) for _, group in groupby(timings, _place)]


def _place(timing: Timing) -> tuple[Any, ...]:
    assert timing.grown is not None
    return timing.grown.network, timing.grown.along, timing.where.dtype, timing.where.device, timing.threads


def _text(group: Sequence[Timing]) -> str:
    header, *rows = growth_cells(group)
    return "\n".join([growth_title(group), tabulate(rows, header, disable_numparse=True), *growth_notes(group)])


def growth_title(group: Sequence[Timing]) -> str:
    """What a group has in common."""
    grown, where = group[0].grown, group[0].where
    assert grown is not None
    return f"{grown.network} by {grown.along}: forward + backward, {where.dtype}, {where.device}"


def growth_cells(group: Sequence[Timing]) -> list[list[str]]:
    """The header, and a line for each size."""
    assert group[0].grown is not None
    labels = _labels(group)
    header = [group[0].grown.along, "parameters", *labels, *(f"memory of {label}" for label in labels)]
    return [header, *(_row(size, found, labels) for size, found in _by_size(group).items())]


def growth_notes(group: Sequence[Timing]) -> list[str]:
    """Exponents, and when a setup has paid, a line each."""
    assert group[0].grown is not None
    by_size = _by_size(group)
    return [*_exponents(by_size, _labels(group)), *_crossings(group[0].grown.along, by_size)]


def _labels(group: Sequence[Timing]) -> list[str]:
    return list(dict.fromkeys(timing.where.candidate for timing in group))


def _by_size(group: Sequence[Timing]) -> dict[int, dict[str, Timing]]:
    return {
        size: {timing.where.candidate: timing for timing in mine} for size, mine in groupby(group, lambda t: _size(t))
    }


def _size(timing: Timing) -> int:
    assert timing.grown is not None
    return timing.grown.size


def _row(size: int, found: Mapping[str, Timing], labels: Sequence[str]) -> list[str]:
    times = [time_text(found[n].times[STEP]) if found[n].times else found[n].verdict for n in labels]
    memory = [bytes_text(found[n].memory) for n in labels]
    return [str(size), f"{next(iter(found.values())).parameters:,}", *times, *memory]


def _exponents(by_size: Mapping[int, Mapping[str, Timing]], labels: Sequence[str]) -> Iterator[str]:
    for label in labels:
        known = {size: found[label] for size, found in by_size.items() if found[label].times}
        of_time = exponent([*known], [timing.times[STEP].middle for timing in known.values()])
        of_memory = exponent([*known], [timing.memory or 0 for timing in known.values()])
        parts = [("time", of_time), ("memory", of_memory)]
        said = [f"{name} grows as size^{e.middle:.2f} ({e.low:.2f} to {e.high:.2f})" for name, e in parts if e]
        if said:
            yield f"{label}: {', '.join(said)}"


def _crossings(along: str, by_size: Mapping[int, Mapping[str, Timing]]) -> Iterator[str]:
    """At each size, of each candidate: whether its setup pays, beside the fastest of those with a shorter one."""
    for size, found in by_size.items():
        timed = [timing for timing in found.values() if timing.times and timing.setup_seconds is not None]
        for timing in timed:
            shorter = [o for o in timed if (o.setup_seconds or 0.0) < (timing.setup_seconds or 0.0)]
            if not shorter:
                continue
            other = min(shorter, key=lambda o: o.times[STEP].middle)
            setups = f"{seconds_text(timing.setup_seconds or 0.0)} against {seconds_text(other.setup_seconds or 0.0)}"
            who = f"{along} {size}: the setup of {timing.where.candidate} ({setups} of {other.where.candidate})"
            steps = steps_to_pay(timing, other)
            yield f"{who} " + (
                "never pays"
                if steps is None
                else f"pays after {steps.middle:,.0f} steps ({steps.low:,.0f} to {_end(steps)})"
            )


def _end(steps: Interval) -> str:
    return f"{steps.high:,.0f}" if np.isfinite(steps.high) else "never"
