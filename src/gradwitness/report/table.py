"""The report as text: a table, and the short report that an assertion shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from gradwitness.evidence.exercise import Exercise
from gradwitness.report.exercise import unexercised, unexercised_in_full, untested
from gradwitness.report.row import Row, describe
from gradwitness.verdict import ACCEPTED, Verdict

__all__ = ["short_report", "table"]

HEADERS = (
    "network",
    "dtype",
    "backend",
    "worst tensor",
    "error",
    "floor",
    "error/floor",
    "ulps",
    "limit",
    "fd error",
    "textbook",
    "verdict",
)
SHOWN = 12  # lines of a short report
TEXTBOOK_RULE = 1e-5
_SEVERITY = list(Verdict)
_COLORS = {True: "\033[32m", False: "\033[31m"}


def table(rows: Sequence[Row], exercise: Mapping[str, Sequence[Exercise]], *, verbose: bool, color: bool) -> str:
    """A row per network x backend x dtype, its worst tensor shown; below it what there is to say."""
    from tabulate import tabulate

    shown = rows if verbose else [_worst(list(cell)) for _, cell in groupby(rows, _cell)]
    body = [_line(row, color) for row in shown]
    lines = [tabulate(body, HEADERS, tablefmt="simple", disable_numparse=True, colalign=_ALIGN)]
    details = [describe(row) for row in rows if row.verdict is not Verdict.AGREE and not _is_inapplicable(row)]
    details += _inapplicable(rows)
    remarks = Counter(row.message for row in rows if row.verdict is Verdict.AGREE and row.message)
    details += [f"{count} that agree were {message}" for message, count in remarks.items()]
    details += _custom(rows)
    measured = {(row.dtype, row.against): None for row in rows if row.against}
    details += [f"{dtype}: error is the distance from the gradient of {label}" for dtype, label in measured]
    details += [f"{place}: no reference in 256 bits: {reason}" for place, reason in _refusals(rows).items()]
    details += [*untested(exercise), *(unexercised_in_full if verbose else unexercised)(exercise)]
    if details:
        lines += ["", *_deduplicated(details)]
    return "\n".join([*lines, "", summary(rows)])


def _is_inapplicable(row: Row) -> bool:
    return row.verdict is Verdict.UNSUPPORTED and row.path is not None


def _inapplicable(rows: Sequence[Row]) -> list[str]:
    """Why paths do not apply: a line for each reason, whatever the dtype."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for row in filter(_is_inapplicable, rows):
        where.setdefault((row.network, row.message), {})[row.candidate] = None
    return [f"{network} {', '.join(who)}: {Verdict.UNSUPPORTED}: {why}" for (network, why), who in where.items()]


def _custom(rows: Sequence[Row]) -> list[str]:
    """Which custom rules had a part in which candidates' gradients, and which were there and had none."""
    where: dict[tuple[str, bool], dict[str, None]] = {}
    for row in rows:
        for name, ran in (row.custom or {}).items():
            where.setdefault((name, ran), {})[row.candidate] = None
    return [
        f"custom rule {name} {'ran' if ran else 'NEVER RAN'} in {', '.join(labels)}"
        for (name, ran), labels in where.items()
    ]


def _refusals(rows: Sequence[Row]) -> dict[str, str]:
    """Why there is no reference, by network, dtype and reason: the first tensor, and how many more there are."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row.refused and row.parameter:
            found.setdefault((f"{row.network} {row.dtype}", row.refused), {})[row.parameter] = None
    lines = {}
    for (place, reason), parameters in found.items():
        first, *others = parameters
        lines[f"{place} {first}" + (f" and {len(others)} more" if others else "")] = reason
    return lines


_ALIGN = ("left", "left", "left", "left", *["right"] * 7, "left")


def summary(rows: Sequence[Row]) -> str:
    """How many gradients got which verdict, and how many candidates did not run."""
    ran = [row for row in rows if row.parameter is not None]
    parts = [f"{len(ran)} gradients: {_counts(ran)}"] if ran else ["no gradients"]
    others = [row for row in rows if row.parameter is None]
    if others:
        parts.append(f"{len(others)} without gradients: {_counts(others)}")
    return "; ".join(parts)


def _counts(rows: Sequence[Row]) -> str:
    counts = {v: sum(row.verdict is v for row in rows) for v in Verdict}
    return ", ".join(f"{n} {v}" for v, n in counts.items() if n)


def short_report(rows: Sequence[Row], failures: Sequence[str]) -> str:
    """A dozen lines at most: what failed, or that all agree."""
    if not failures:
        return f"gradwitness: {summary(rows)}"
    lines = [f"gradwitness: {summary(rows)}", *failures[: SHOWN - 2]]
    if len(failures) > SHOWN - 2:
        lines.append(f"... and {len(failures) - SHOWN + 2} more")
    return "\n".join(lines)


def _cell(row: Row) -> tuple[str, str, str, str]:
    return row.network, row.dtype, row.candidate, row.device


def _worst(rows: list[Row]) -> Row:
    """The row with the gravest verdict; among equals the one nearest to its threshold."""
    return max(rows, key=lambda row: (_SEVERITY.index(row.verdict), row.ratio or 0.0, row.error or 0.0))


def _line(row: Row, color: bool) -> list[str]:
    verdict = str(row.verdict)
    if color:
        verdict = f"{_COLORS[row.verdict in ACCEPTED]}{verdict}\033[0m"
    return [
        row.network,
        row.dtype,
        row.candidate if row.device == "cpu" else f"{row.candidate} ({row.device})",
        row.parameter or "",
        "referee" if row.referee else _relative(row, row.error),
        _relative(row, row.floor),
        "" if row.error is None or row.floor is None else _ratio(row.error, row.floor),
        "" if row.ulps is None else f"{row.ulps:.2g}",
        _relative(row, row.limit),
        _relative(row, row.fd_error),
        "" if row.textbook is None else f"{row.textbook:.0e} {'ok' if row.textbook < TEXTBOOK_RULE else 'FAILS'}",
        verdict,
    ]


def _relative(row: Row, figure: float | None) -> str:
    """Relative to the gradient's norm, or absolute (abs) where that norm is nothing but rounding."""
    if not figure:
        return "" if figure is None else "0"
    if row.reference and row.floor is not None and row.reference > row.floor:
        return f"{figure / row.reference:.1e}"
    return f"{figure:.1e} abs"


def _ratio(error: float, floor: float) -> str:
    if error == 0:
        return "0"
    return f"{error / floor:.2g}" if floor else "inf"


def _deduplicated(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
