"""What rows have to say beyond that they agree, a line for each finding: what several rows say alike is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["findings"]

NAMED = 3  # parameters of a finding that are named; of more of them the first, and how many others
OF_THE_LOSS = Verdict.DIFFERENT_LOSS  # and of no parameter
ONE_CAUSE = frozenset({Verdict.NONDETERMINISTIC, OF_THE_LOSS})  # of a candidate, whatever its messages say


def findings(rows: Iterable[Row]) -> list[str]:
    """A line for the rows of one candidate that say the same, in the order in which they first come."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        said = "" if row.verdict in ONE_CAUSE else row.message
        alike.setdefault((row.network, _who(row), str(row.verdict), said), []).append(row)
    return [_line(group) for group in alike.values()]


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
