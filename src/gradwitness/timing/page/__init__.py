"""A benchmark as a page: what was timed, ratios at a glance, times as bars with their intervals, the environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwitness.page import Page, Section, expect_installed
from gradwitness.page.pictures import Picture
from gradwitness.report.page.marks import MARKS
from gradwitness.timing.page.bars import bars
from gradwitness.timing.page.ratios import ratios
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import CONFIDENCE
from gradwitness.timing.table import HEADER, cells, groups, notes, title
from gradwitness.verdict import Verdict

__all__ = ["to_page"]

OF_RATIOS = "Each candidate is compared with the first of its group, turn by turn. Left of the line is faster."
OF_TIMES = (
    f"Times are medians. Whiskers, and figures in brackets, hold the median with {CONFIDENCE:.0%} confidence. The "
    "figure behind a time is its ratio to that of the first candidate."
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
    picture: Picture
    table: Table
    notes: Sequence[str]


def to_page(timings: Sequence[Timing], environment: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """The page as HTML. made: how it was made. Raises GradwitnessError."""
    expect_installed("a page")
    untimed = [timing for timing in timings if timing.why]
    done = len(timings) - len(untimed)
    parts = (_untimed(untimed), _ratios(timings), _times(timings), _environment(environment))
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
    return [Section("times", "Times", "times.html", shown, OF_TIMES)] if shown else []


def _group(group: Sequence[Timing], name: str) -> Group:
    timed = [timing for timing in group if not timing.why]
    return Group(title(group[0]), bars(group, name), Table(HEADER, list(map(cells, group))), list(notes(timed)))


def _environment(environment: Mapping[str, Any]) -> list[Section]:
    return [Section("environment", "Environment", "record.html", environment)] if environment else []
