"""Time and memory against size, as curves: a line for each candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwitness.page.pictures import MUTED, Picture, Series, drawing, inline, panel
from gradwitness.timing.growth import STEP, growth_title
from gradwitness.timing.page.bars import whiskers
from gradwitness.timing.records import Grown, Timing
from gradwitness.timing.statistics import Interval
from gradwitness.timing.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["curves"]

HEIGHT = 210.0
TICKS = 6  # at most, of what grows


@dataclass(frozen=True)
class Quantity:
    """of: its value in a timing, with the interval if there is one. text: as people read it. base: of its scale."""

    name: str
    of: Callable[[Timing], Interval | None]
    text: Callable[[float], str]
    base: int


def _time(timing: Timing) -> Interval | None:
    return timing.times.get(STEP)


def _memory(timing: Timing) -> Interval | None:
    held = timing.memory
    return Interval(held, held, held) if held else None


def _bytes_text(held: float) -> str:
    return bytes_text(round(held))


QUANTITIES = (Quantity("time", _time, seconds_text, 10), Quantity("memory", _memory, _bytes_text, 4))


def curves(group: Sequence[Timing], name: str, looks: Mapping[str, Series]) -> list[Picture]:
    """Of one network along one axis: of time, with its intervals, and of memory, where they are known."""
    with drawing():
        return [
            _picture(mine, f"{name}-{quantity.name}", quantity, looks)
            for quantity in QUANTITIES
            if (mine := [timing for timing in group if quantity.of(timing)])
        ]


def _picture(group: Sequence[Timing], name: str, quantity: Quantity, looks: Mapping[str, Series]) -> Picture:
    figure, (axes,) = panel(HEIGHT)
    axes.set(xscale="log", yscale="log", xlabel=_grown(group[0]).along, title=quantity.name)
    for candidate, look in looks.items():
        found = {_grown(t).size: quantity.of(t) for t in group if t.where.candidate == candidate}
        _curve(axes, {size: value for size, value in found.items() if value}, look)
    sizes = sorted({_grown(timing).size for timing in group})
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    _scale(axes.yaxis, quantity)
    axes.tick_params(labelcolor=MUTED)
    text = f"{quantity.name} of {growth_title(group)}: {'; '.join(_told(group, quantity))}"
    return Picture("", inline(figure, name, text), "")


def _curve(axes: Axes, found: Mapping[int, Interval], look: Series) -> None:
    for size, value in found.items():
        axes.errorbar(size, value.middle, whiskers(value), color=look.color, capsize=2.5)
    middles = [value.middle for value in found.values()]
    axes.plot(list(found), middles, marker=look.marker, color=look.color, markerfacecolor="none")  # curves may coincide


def _scale(axis: Axis, quantity: Quantity) -> None:
    from matplotlib.ticker import LogLocator

    def text(value: float, place: float) -> str:
        return quantity.text(value)

    axis.set_major_locator(LogLocator(quantity.base, numticks=TICKS))
    axis.set_major_formatter(text)


def _grown(timing: Timing) -> Grown:
    assert timing.grown is not None
    return timing.grown


def _told(group: Sequence[Timing], quantity: Quantity) -> Iterator[str]:
    for timing in group:
        if value := quantity.of(timing):
            yield f"{timing.where.candidate} at {_grown(timing).size} {quantity.text(value.middle)}"
