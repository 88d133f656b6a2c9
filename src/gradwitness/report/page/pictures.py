"""Errors against what rounding explains, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradwitness.dtypes import DTYPES
from gradwitness.page import pictures as page
from gradwitness.page.pictures import INK, MUTED, Picture, Pictures, Series
from gradwitness.report.figures import who
from gradwitness.report.row import Row
from gradwitness.report.table import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["pictures"]

LINE = 19.0  # units of height for each network
MOST = 40  # networks in one picture
LEAST, FAR = 1e-3, 1e6  # floors: what is less, or more, is drawn at the edge
WRONG = Series("not accepted", "x", page.BAD)
MANY = 200  # marks, which are then smaller
Looks = Mapping[str, Series]


@dataclass(frozen=True)
class Error:
    """Of one gradient. floor: over the gradient's norm. floors: how many of these it is. own: whether the gradient is
    more than rounding, so that its norm means something."""

    network: str
    dtype: str
    candidate: str
    floor: float
    floors: float
    own: bool
    accepted: bool

    @classmethod
    def of(cls, row: Row, passes: Callable[[Row], bool]) -> Error | None:
        """None where it is not known."""
        if row.error is None or not row.floor or not math.isfinite(row.error / row.floor):
            return None
        own = row.reference is not None and math.isfinite(row.reference) and row.reference > row.floor
        floor = row.floor / (row.reference or 1.0)
        return cls(row.network, row.dtype, who(row), floor, row.error / row.floor, own, passes(row))

    @property
    def drawn(self) -> float:
        """In floors, as far as there is room for it."""
        return min(max(self.floors, LEAST), FAR)


def pictures(rows: Sequence[Row], passes: Callable[[Row], bool]) -> Pictures | None:
    """What there is to draw of these rows: nothing, if no error is known. passes: whether a row is no failure."""
    errors = [error for error in (Error.of(row, passes) for row in rows) if error is not None]
    if not errors:
        return None
    looks = page.series(error.candidate for error in errors)
    own = [error for error in errors if error.own]
    legend = [*looks.values(), *([] if all(error.accepted for error in errors) else [WRONG])]
    with page.drawing():
        against = [_against_floors(own, len(errors) - len(own), looks)] if own else []
        return Pictures(legend, [*against, _by_network(errors, looks)])


def _against_floors(errors: Sequence[Error], others: int, looks: Looks) -> Picture:
    """Error over floor, both relative to the gradient, a panel for each dtype. others: how many have no place there."""
    dtypes = [dtype for dtype in DTYPES if any(error.dtype == dtype for error in errors)]
    lines, columns = -(-len(dtypes) // 2), min(len(dtypes), 2)
    figure, grid = page.panel(150 + 150 * lines if columns == 2 else 330, lines, columns)
    for dtype, axes in zip(dtypes, grid, strict=False):
        _panel(axes, dtype, [error for error in errors if error.dtype == dtype], looks)
    for axes in grid[len(dtypes) :]:
        axes.remove()
    figure.supxlabel("noise floor / gradient", color=MUTED, size="medium")
    figure.supylabel("error / gradient", color=MUTED, size="medium")
    above = sum(error.floors > 1 for error in errors)
    text = f"errors of {counted(len(errors), 'gradient')} against their noise floors; {above} are above"
    caption = "A mark for each gradient. The line is the noise floor. Below it, rounding explains more than the error."
    if others:
        caption += f" {counted(others, 'gradient')} that are zero up to rounding have no place here."
    return Picture("Error against noise floor", page.inline(figure, "floors", text), caption)


def _panel(axes: Axes, dtype: str, errors: Sequence[Error], looks: Looks) -> None:
    floors = [error.floor for error in errors]
    ends = min(floors) / 3, max(floors) * 3
    axes.set(xscale="log", yscale="log", xlim=ends, title=dtype)
    axes.plot(ends, ends, color=INK, linewidth=1.2, zorder=1)
    _draw(axes, errors, floors, [error.floor * max(error.floors, LEAST) for error in errors], looks)
    for axis in (axes.xaxis, axes.yaxis):
        page.powers_of_ten(axis)
        axis.set_tick_params(labelcolor=MUTED)


def _by_network(errors: Sequence[Error], looks: Looks) -> Picture:
    """Errors in floors, a line for each network."""
    networks = _largest(errors)
    shown = [error for error in errors if error.network in networks]
    figure, (axes,) = page.panel(60 + LINE * len(networks))
    beside = {
        name: 0.6 * ((number + 0.5) / len(looks) - 0.5) for number, name in enumerate(looks)
    }  # none hides another
    floors = [error.drawn for error in shown]
    _draw(axes, shown, floors, [networks.index(error.network) + beside[error.candidate] for error in shown], looks)
    axes.set(xscale="log", ylim=(len(networks) - 0.5, -0.5), xlabel="error, in noise floors")
    axes.set_xlim(min(0.05, min(floors) / 1.5), max(20.0, max(floors) * 1.5))
    page.powers_of_ten(axes.xaxis)
    axes.axvline(1.0, color=INK, linewidth=1.2, zorder=1)
    axes.hlines(range(len(networks)), *axes.get_xlim(), color=page.RULE, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(networks)), list(map(page.label, networks)))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    worst = max(shown, key=lambda error: error.floors)
    text = f"errors in noise floors, the largest {worst.floors:.2g}, of {worst.candidate} on {worst.network}"
    caption = "The line is one noise floor: what rounding alone explains. Marks at the edges may lie beyond."
    if len(shown) < len(errors):
        caption += f" These are the {len(networks)} networks with the largest errors."
    return Picture("In noise floors, by network", page.inline(figure, "networks", text), caption)


def _largest(errors: Sequence[Error]) -> list[str]:
    """The networks with the largest errors, in the order in which they come."""
    worst: dict[str, float] = {}
    for error in errors:
        worst[error.network] = max(error.floors, worst.get(error.network, 0.0))
    kept = sorted(worst, key=lambda name: -worst[name])[:MOST]
    return [name for name in worst if name in kept]


def _draw(axes: Axes, errors: Sequence[Error], x: Sequence[float], y: Sequence[float], looks: Looks) -> None:
    """A mark for each, by candidate; a cross on what is not accepted."""
    size = 5.0 if len(errors) < MANY else 3.5
    places = list(zip(errors, x, y, strict=True))
    for name, look in looks.items():
        _marks(axes, look, size, [(a, b) for error, a, b in places if error.candidate == name])
    _marks(axes, WRONG, 9.0, [(a, b) for error, a, b in places if not error.accepted])


def _marks(axes: Axes, look: Series, size: float, places: Sequence[tuple[float, float]]) -> None:
    if places:  # no marks at all would take room at the origin
        style: Any = {
            "markersize": size,
            "markerfacecolor": "none",
            "clip_on": False,
        }  # hollow, as several may coincide
        axes.plot(*zip(*places, strict=True), look.marker, color=look.color, **style)
