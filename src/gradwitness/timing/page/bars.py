"""Times of one group as bars: a block for each phase, a bar for each candidate, with its interval and its ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwitness.page.pictures import BAD, INK, MUTED, Picture, drawing, inline, label, panel, series
from gradwitness.timing.calls import PHASES
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import Interval
from gradwitness.timing.table import title
from gradwitness.timing.units import seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bars", "whiskers"]

LINE = 20.0  # units of height for each bar
LONGEST = 16  # characters of a name
ROOM = 0.58  # part of the width that the longest bar and its whiskers take
COLUMNS = (0.81, 1.0)  # where times and ratios end, of the width


def bars(timings: Sequence[Timing], name: str) -> Picture:
    """Of one network, dtype and device."""
    names = [timing.where.candidate for timing in timings]
    looks = series(names)
    lines = list(_lines(timings))
    with drawing():
        figure, (axes,) = panel(LINE * (len(lines) + 1.5))
        longest = max((timing.times[p].middle for timing in timings for p in timing.times), default=1.0)
        for place, (phase, timing) in enumerate(lines):
            if timing is None:
                axes.text(0, place + 0.15, phase.replace("_", " + "), color=INK, va="center", weight="bold")
            elif phase in timing.times:
                _bar(axes, place, timing, phase, looks[timing.where.candidate].color)
            else:
                said, color = (f"{label(timing.verdict)}: not timed", BAD) if timing.why else ("not alone", MUTED)
                axes.text(0.02 * longest, place, said, color=color, va="center")
        _frame(axes, lines, longest)
        text = f"times of {title(timings[0])}: {'; '.join(_told(timings))}"
        return Picture("", inline(figure, name, text), "")


def _lines(timings: Sequence[Timing]) -> Iterator[tuple[str, Timing | None]]:
    """From above: a phase, then its candidates."""
    for phase in PHASES:
        yield phase, None
        for timing in timings:
            yield phase, timing


def _bar(axes: Axes, place: int, timing: Timing, phase: str, color: str) -> None:
    found = timing.times[phase]
    axes.barh(place, found.middle, height=0.66, color=color)
    axes.errorbar(found.middle, place, xerr=whiskers(found), color=INK, capsize=2.5, elinewidth=1.1, capthick=1.1)
    said = [seconds_text(found.middle), f"{timing.ratios[phase].middle:.2f}×" if phase in timing.ratios else ""]
    for at, text in zip(COLUMNS, said, strict=True):
        beside: Any = {"xycoords": axes.get_yaxis_transform(), "ha": "right", "va": "center", "annotation_clip": False}
        axes.annotate(text, (at, place), color=INK, **beside)


def whiskers(found: Interval) -> list[list[float]]:
    """How far the interval reaches to both sides, none where it has no end, as matplotlib takes it."""
    ends = (found.middle - found.low, found.high - found.middle)
    low, high = (end if np.isfinite(end) else 0.0 for end in ends)
    return [[max(low, 0.0)], [max(high, 0.0)]]


def _frame(axes: Axes, lines: Sequence[tuple[str, Timing | None]], longest: float) -> None:
    names = [(place, timing.where.candidate) for place, (_, timing) in enumerate(lines) if timing is not None]
    axes.set_yticks([place for place, _ in names], [label(name, LONGEST) for _, name in names])
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlim=(0, 1.1 * longest / ROOM))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)  # each bar says its time
    axes.spines["bottom"].set_visible(False)


def _told(timings: Sequence[Timing]) -> Iterator[str]:
    for timing in timings:
        times = [f"{phase.replace('_', ' + ')} {seconds_text(found.middle)}" for phase, found in timing.times.items()]
        yield f"{timing.where.candidate} {', '.join(times) or timing.verdict}"
