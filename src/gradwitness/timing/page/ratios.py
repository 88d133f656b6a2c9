"""Backward times as ratios with their intervals: a line for each candidate, in a block for each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradwitness.page.pictures import INK, MUTED, RULE, Picture, Pictures, Series, drawing, inline, label, panel, series
from gradwitness.timing.page.bars import whiskers
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import Interval
from gradwitness.timing.table import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ratios"]

LINE = 16.0  # units of height for each candidate
GAP = 0.8  # lines between groups
MOST = 7  # ticks
CAPTION = "The line is the first candidate of each group. Whiskers hold the ratio with 95% confidence."
Compared = list[tuple[Timing, Interval]]


def ratios(timings: Sequence[Timing]) -> Pictures | None:
    """Of backward alone, or of forward + backward where there is none alone; nothing where nothing is compared."""
    compared = [group for group in map(_compared, groups(timings)) if len(group) > 1]
    if not compared:
        return None
    looks = series(timing.where.candidate for group in compared for timing, _ in group)
    middles: dict[str, float] = {}
    place = 0.0
    with drawing():
        figure, (axes,) = panel(50 + LINE * sum(len(group) + GAP for group in compared))
        for group in compared:
            middles[_named(group[0][0], timings)] = place + (len(group) - 1) / 2
            for timing, found in group:
                _draw(axes, place, found, looks[timing.where.candidate])
                place += 1
            axes.axhline(place - 0.5 + GAP / 2, color=RULE, linewidth=0.6)
            place += GAP
        _frame(axes, place - GAP, middles)
        return Pictures(list(looks.values()), [Picture("", inline(figure, "ratios", _told(compared)), CAPTION)])


def _compared(group: Sequence[Timing]) -> Compared:
    found = [(timing, timing.ratios.get("backward") or timing.ratios.get("forward_backward")) for timing in group]
    return [(timing, ratio) for timing, ratio in found if ratio is not None]


def _draw(axes: Axes, place: float, found: Interval, look: Series) -> None:
    axes.errorbar(found.middle, place, xerr=whiskers(found), fmt=look.marker, color=look.color, capsize=2.5)
    beside: Any = {"xycoords": axes.get_yaxis_transform(), "va": "center", "annotation_clip": False}
    axes.annotate(f"{found.middle:.2f}×", (1.02, place), color=look.color, **beside)


def _frame(axes: Axes, end: float, middles: dict[str, float]) -> None:
    """The line of the first candidates, the scale, and the names of the groups at their middles."""
    axes.axvline(1.0, color=INK, linewidth=1.2, zorder=1)
    axes.set(xscale="log", ylim=(end - 0.4, -0.6), xlabel="times as long as the first")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2.0))
    ticks = _ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(list(middles.values()), list(middles))
    axes.tick_params(axis="y", length=0, labelcolor=MUTED)
    axes.spines["left"].set_visible(False)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times a power of ten, or such powers alone where that is too many."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    fine = [tick for power in powers for tick in (power, 2 * power, 5 * power) if low <= tick <= high]
    return fine if len(fine) <= MOST else [power for power in powers if low <= power <= high]


def _named(timing: Timing, others: Sequence[Timing]) -> str:
    """The group's network, with what tells it from others of the same."""
    varied = [
        str(getattr(timing.where, name))
        for name in ("dtype", "device")
        if len({getattr(other.where, name) for other in others}) > 1
    ]
    return "\n".join(map(label, [timing.where.network, *varied]))


def _told(compared: Sequence[Compared]) -> str:
    lines = [
        f"{group[0][0].where.network}: "
        + ", ".join(f"{timing.where.candidate} {ratio.middle:.2f}" for timing, ratio in group)
        for group in compared
    ]
    return f"backward times over those of the first candidate; {'; '.join(lines)}"
