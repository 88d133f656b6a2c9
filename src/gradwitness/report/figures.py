"""A row's figures as text, alike in every form of a report."""

from __future__ import annotations

from collections.abc import Iterable

from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["error", "in_floors", "relative", "who", "worst"]

_SEVERITY = list(Verdict)


def worst(rows: Iterable[Row]) -> Row:
    """The row with the gravest verdict; among equals the one nearest to its threshold."""
    return max(rows, key=lambda row: (_SEVERITY.index(row.verdict), row.ratio or 0.0, row.error or 0.0))


def who(row: Row) -> str:
    """The candidate, and where it ran if that is no CPU."""
    return row.candidate if row.device == "cpu" else f"{row.candidate} ({row.device})"


def error(row: Row) -> str:
    """How far it is from the gradient that it is held against, in floors; where nothing but differences judges it, how
    far from these."""
    if row.referee:
        return "reference"
    if floors := in_floors(row):
        return f"{floors} floors"
    from_differences = relative(row, row.fd_error)
    return f"fd {from_differences}" if from_differences else ""


def in_floors(row: Row) -> str:
    """The error over the floor."""
    if row.error is None or row.floor is None:
        return ""
    if row.error == 0:
        return "0"
    return f"{row.error / row.floor:.2g}" if row.floor else "inf"


def relative(row: Row, figure: float | None) -> str:
    """Relative to the gradient's norm, or absolute (abs) where that norm is nothing but rounding."""
    if not figure:
        return "" if figure is None else "0"
    if row.reference and row.floor is not None and row.reference > row.floor:
        return f"{figure / row.reference:.1e}"
    return f"{figure:.1e} abs"
