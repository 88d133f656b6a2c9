"""What rows have to say beyond that they agree, a line for each finding: what several rows say alike is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["findings"]

NAMED = 3  # parameters of a finding that are named; of more of them the first, and how many others
OF_THE_LOSS = Verdict.DIFFERENT_LOSS  # and of no parameter
ONE_CAUSE = frozenset({Verdict.NONDETERMINISTIC, OF_THE_LOSS})  # of a candidate, whatever its messages say


def findings(rows: Iterable[Row], *, most: int | None = None) -> list[str]:
    """A line for the rows of one candidate that say the same, in the order in which they first come.

    most: lines of one verdict on one candidate, after which the others are counted.
    """
    alike: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        said = "" if row.verdict in ONE_CAUSE else row.message
        alike.setdefault((row.network, _who(row), str(row.verdict), said), []).append(row)
    lines: dict[tuple[str, str, str], list[str]] = {}
    for (network, who, verdict, _), group in alike.items():
        lines.setdefault((network, who, verdict), []).append(_line(group))
    return [line for place, found in lines.items() for line in _some(place, found, most)]


def _some(place: tuple[str, str, str], lines: list[str], most: int | None) -> list[str]:
    if most is None or len(lines) <= most + 1:
        return lines
    network, who, verdict = place
    return [*lines[:most], f"{network} {who}: {len(lines) - most} more that are {verdict} (verbose says which)"]


def _line(rows: Sequence[Row]) -> str:
    first = rows[0]
    dtypes = ", ".join(dict.fromkeys(row.dtype for row in rows))
    parameters = [row.parameter for row in rows if row.parameter is not None and row.verdict is not OF_THE_LOSS]
    place = _named(list(dict.fromkeys(parameters)))
    message = f": {first.message}" if first.message else ""
    return f"{first.network} {dtypes} {_who(first)}{place}: {first.verdict}{message}"


def _who(row: Row) -> str:
    return row.candidate if row.device == "cpu" else f"{row.candidate} on {row.device}"


def _named(parameters: Sequence[str]) -> str:
    if not parameters:
        return ""
    if len(parameters) <= NAMED:
        return f" {', '.join(parameters)}"
    return f" {parameters[0]} and {len(parameters) - 1} other tensors"
