"""A report as a page: the outcome, what fails, the matrix of verdicts, errors against floors, and the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gradwitness.dtypes import DTYPES
from gradwitness.evidence.exercise import Exercise
from gradwitness.page import Page, Section, expect_installed
from gradwitness.report.figures import who
from gradwitness.report.page.marks import MARKS
from gradwitness.report.page.matrix import matrix
from gradwitness.report.page.pictures import pictures
from gradwitness.report.row import Row
from gradwitness.report.table import below, counted
from gradwitness.verdict import Verdict

__all__ = ["to_page"]

OF_VERDICTS = (
    "Each mark is a candidate in one dtype, at its worst tensor. The figure is its error in noise floors. Open a mark "
    "to see what its verdict rests on."
)
OF_ERRORS = (
    "A noise floor is what rounding alone explains, measured at this point of this network. A right gradient is within "
    "a few floors."
)


def to_page(
    rows: Sequence[Row],
    passes: Callable[[Row], bool],
    failures: Sequence[str],
    exercise: Mapping[str, Sequence[Exercise]],
    environment: Mapping[str, Any],
    made: Mapping[str, str],
) -> str:
    """The page as HTML. Raises GradwitnessError.

    passes: whether a row is no failure. failures: why the report is not green. made: how the page was made.
    """
    expect_installed("a page")
    parts = (
        _failures(failures),
        _matrix(rows, passes),
        _pictures(rows, passes),
        _remarks(rows, exercise),
        _environment(environment),
    )
    return Page(
        title="gradwitness verify",
        kind="bad" if failures else "good",
        mark="✗" if failures else "✓",
        outcome="Not verified" if failures else "Verified",
        summary=_summary(rows),
        sections=[section for part in parts for section in part],
        counts=[(MARKS[v].kind, MARKS[v].symbol, count, str(v)) for v in Verdict if (count := _count(rows, v))],
        made=made,
    ).html()


def _count(rows: Iterable[Row], verdict: Verdict) -> int:
    return sum(row.verdict is verdict for row in rows)


def _summary(rows: Sequence[Row]) -> str:
    """How much was verified; the counts beside it say with which verdicts."""
    ran = sum(row.parameter is not None for row in rows)
    candidates, networks = ({who(row) for row in rows}, {row.network for row in rows})
    dtypes = [dtype for dtype in DTYPES if any(row.dtype == dtype for row in rows)]
    others = f"; {len(rows) - ran} that gave none" if ran < len(rows) else ""
    of = f"{counted(len(candidates), 'candidate')} on {counted(len(networks), 'network')}"
    return f"{counted(ran, 'gradient')} of {of}, in {', '.join(dtypes)}{others}" if rows else "no gradients"


# Sections: each is left out where there is nothing to show


def _failures(failures: Sequence[str]) -> list[Section]:
    return [Section("failures", "What fails", "lines.html", failures)] if failures else []


def _matrix(rows: Sequence[Row], passes: Callable[[Row], bool]) -> list[Section]:
    return [Section("verdicts", "Verdicts", "matrix.html", matrix(rows, passes), OF_VERDICTS)] if rows else []


def _pictures(rows: Sequence[Row], passes: Callable[[Row], bool]) -> list[Section]:
    drawn = pictures(rows, passes)
    return [Section("errors", "Errors", "pictures.html", drawn, OF_ERRORS)] if drawn else []


def _remarks(rows: Sequence[Row], exercise: Mapping[str, Sequence[Exercise]]) -> list[Section]:
    lines = below(rows, exercise, verbose=True)
    return [Section("remarks", "Also to know", "lines.html", lines)] if lines else []


def _environment(environment: Mapping[str, Any]) -> list[Section]:
    return [Section("environment", "Environment", "record.html", environment)] if environment else []
