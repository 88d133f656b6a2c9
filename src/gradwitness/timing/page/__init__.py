"""A benchmark as a page: what was timed, ratios at a glance, times as bars with their intervals, growth as curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwitness.page import Page, Section, expect_installed
from gradwitness.page.pictures import Picture, Series, series
from gradwitness.report.page.marks import MARKS
from gradwitness.timing.growth import growth_cells, growth_groups, growth_notes, growth_title
from gradwitness.timing.page.bars import bars
from gradwitness.timing.page.curves import curves
from gradwitness.timing.page.ratios import ratios
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import CONFIDENCE
from gradwitness.timing.table import HEADER, cells, groups, notes, title
from gradwitness.verdict import Verdict

__all__ = ["Group", "Groups", "Table", "to_page"]

OF_RATIOS = "Each candidate is compared with the first of its group, turn by turn. Left of the line is faster."
OF_TIMES = (
    f"Times are medians. Whiskers, and figures in brackets, hold the median with {CONFIDENCE:.0%} confidence. The "
    "figure behind a time is its ratio to that of the first candidate."
)
OF_GROWTH = (
    "Times are those of forward and backward together. On these scales a power of the size is a straight line, and its "
    "exponent the slope."
)


@dataclass(frozen=True)
class Table:
    """A table of text; a line that is shorter than the header ends in a cell that takes the rest."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Group:
    """Times of one network in one dtype on one device."""

    title: str
    pictures: Sequence[Picture]
    table: Table
    notes: Sequence[str]


@dataclass(frozen=True)
class Groups:
    """Several under one legend, if their pictures need one."""

    series: Sequence[Series]
    groups: Sequence[Group]


def to_page(timings: Sequence[Timing], environment: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """The page as HTML. made: how it was made. Raises GradwitnessError."""
    expect_installed("a page")
    untimed = [timing for timing in timings if timing.why]
    done = len(timings) - len(untimed)
    plain, grown = ([one for one in timings if (one.grown is None) is is_plain] for is_plain in (True, False))
    parts = (_untimed(untimed), _ratios(plain), _times(plain), _growth(grown), _environment(environment))
    return Page(
        title="gradwitness bench",
        kind="bad" if untimed else "good",
        mark="✗" if untimed else "✓",
        outcome="Not all timed" if untimed else "Timed",
        summary=f"{done} of {len(timings)} candidates verified and timed",
        sections=[section for part in parts for section in part],
        counts=_counts(done, untimed),
        made=made,
    ).html()


def _counts(done: int, untimed: Sequence[Timing]) -> list[tuple[str, str, int, str]]:
    """Those that were timed, and the others by their verdict."""
    found: list[tuple[str, str, int, str]] = [("good", "✓", done, "timed")] if done else []
    for verdict, count in Counter(timing.verdict for timing in untimed).items():
        mark = MARKS.get(Verdict(verdict)) if verdict in list(Verdict) else None
        found.append((mark.kind if mark else "bad", mark.symbol if mark else "!", count, f"{verdict}, not timed"))
    return found


# Sections: each is left out where there is nothing to show


def _untimed(untimed: Sequence[Timing]) -> list[Section]:
    return [Section("untimed", "What was not timed", "lines.html", list(notes(untimed)))] if untimed else []


def _ratios(timings: Sequence[Timing]) -> list[Section]:
    drawn = ratios(timings)
    return [Section("ratios", "Backward, as a ratio", "pictures.html", drawn, OF_RATIOS)] if drawn else []


def _times(timings: Sequence[Timing]) -> list[Section]:
    shown = [_group(group, f"bars-{number}") for number, group in enumerate(groups(timings))]
    return [Section("times", "Times", "times.html", Groups((), shown), OF_TIMES)] if shown else []


def _group(group: Sequence[Timing], name: str) -> Group:
    timed = [timing for timing in group if not timing.why]
    return Group(title(group[0]), [bars(group, name)], Table(HEADER, list(map(cells, group))), list(notes(timed)))


def _growth(timings: Sequence[Timing]) -> list[Section]:
    looks = series(timing.where.candidate for timing in timings)
    shown = [_grown(group, f"growth-{number}", looks) for number, group in enumerate(growth_groups(timings))]
    drawn = Groups(list(looks.values()), shown)
    return [Section("growth", "Growth", "times.html", drawn, OF_GROWTH)] if shown else []


def _grown(group: Sequence[Timing], name: str, looks: Mapping[str, Series]) -> Group:
    header, *lines = growth_cells(group)
    return Group(growth_title(group), curves(group, name, looks), Table(header, lines), growth_notes(group))


def _environment(environment: Mapping[str, Any]) -> list[Section]:
    return [Section("environment", "Environment", "record.html", environment)] if environment else []
