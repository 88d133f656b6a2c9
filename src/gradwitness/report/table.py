"""The report as text: a table, and the short report that an assertion shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from gradwitness.evidence.exercise import Exercise
from gradwitness.report.exercise import unexercised, unexercised_in_full, untested
from gradwitness.report.figures import error, in_floors, relative, who, worst
from gradwitness.report.findings import findings
from gradwitness.report.row import Row
from gradwitness.verdict import ACCEPTED, Verdict

__all__ = ["NARROW", "brief", "short_report", "summary", "table"]

NARROW = ("network", "dtype", "backend", "tensor", "error", "verdict")
FULL = (*NARROW[:5], "floor", "error/floor", "ulps", "limit", "fd error", "verdict")
WIDTH = 80  # columns of a table that is not told how many there are
NAMES = (0, 2, 3)  # the columns of names, which may be cut
SHORTEST = 9  # characters that are left of one
GAP = 2  # between columns, and what tabulate adds to a header
FEW = 12  # rows that agree and are shown one by one
NOTED = 4  # findings of one verdict on one candidate that are told in full
NAMED = 3  # tensors of a candidate in a note on some of them
SHOWN = 12  # lines of a short report
TEXTBOOK_RULE = 1e-5
_GREEN, _RED, _BOLD, _PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


def table(
    rows: Sequence[Row],
    exercise: Mapping[str, Sequence[Exercise]],
    *,
    verbose: bool,
    color: bool,
    width: int | None,
) -> str:
    """The rows, what there is to say of them, and last what they add up to."""
    body = _in_full(rows, color) if verbose else _in_brief(rows, color, width or WIDTH)
    notes = [
        *findings(
            (row for row in rows if row.verdict is not Verdict.AGREE and not _is_inapplicable(row)),
            most=None if verbose else NOTED,
        ),
        *below(rows, exercise, verbose=verbose),
        *(_textbook(rows) if verbose else ()),
    ]
    last = summary(rows)
    if color:
        last = f"{_BOLD}{_GREEN if all(row.verdict in ACCEPTED for row in rows) else _RED}{last}{_PLAIN}"
    parts = [body, "\n".join(dict.fromkeys(notes)), last]
    return "\n\n".join(part for part in parts if part)


def below(rows: Sequence[Row], exercise: Mapping[str, Sequence[Exercise]], *, verbose: bool = False) -> list[str]:
    """What there is to say of the rows beside why some do not agree, a line each."""
    return [
        *_inapplicable(rows),
        *_remarks(rows),
        *_custom(rows),
        *_captured(rows, verbose),
        *_averages(rows),
        *_held_against(rows),
        *_refusals(rows, verbose),
        *untested(exercise),
        *(unexercised_in_full if verbose else unexercised)(exercise),
    ]


# Rows


def brief(rows: Sequence[Row]) -> list[tuple[Row, list[str]]]:
    """(row, cells by NARROW) of each network, dtype and candidate at its worst tensor, what does not agree first."""
    cells = [worst(cell) for _, cell in groupby(rows, lambda row: row.cell)]
    ordered = sorted(cells, key=lambda row: row.verdict is Verdict.AGREE)
    return [(row, [*_names(row), error(row), str(row.verdict)]) for row in ordered]


def _in_brief(rows: Sequence[Row], color: bool, width: int) -> str:
    """First what does not agree; then what does, as one line where it is much."""
    lines = brief(rows)
    folded = [row for row, _ in lines if row.verdict is Verdict.AGREE]
    if len(folded) <= FEW:
        folded = []
    shown = lines[: len(lines) - len(folded)]
    parts = []
    if shown:
        body = _cut([cells for _, cells in shown], width)
        colored = [[*cells[:-1], _verdict(row, color)] for (row, _), cells in zip(shown, body, strict=True)]
        parts.append(_tabulated(colored, NARROW, ("left",) * 4 + ("right", "left")))
    if folded:
        parts.append(_folded(folded, color))
    return "\n".join(parts)


def _in_full(rows: Sequence[Row], color: bool) -> str:
    body = [
        [
            *_names(row),
            "reference" if row.referee else relative(row, row.error),
            relative(row, row.floor),
            in_floors(row),
            "" if row.ulps is None else f"{row.ulps:.2g}",
            relative(row, row.limit),
            relative(row, row.fd_error),
            _verdict(row, color),
        ]
        for row in rows
    ]
    return _tabulated(body, FULL, ("left",) * 4 + ("right",) * 6 + ("left",))


def _tabulated(body: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    from tabulate import tabulate

    return tabulate(body, headers, tablefmt="simple", disable_numparse=True, colalign=align if body else None)


def _names(row: Row) -> list[str]:
    return [row.network, row.dtype, who(row), row.parameter or ""]


def _folded(rows: Sequence[Row], color: bool) -> str:
    """How many agree, and the one nearest to not agreeing."""
    nearest = worst(rows)
    count = f"{len(rows)} agree"
    count = f"{_GREEN}{count}{_PLAIN}" if color else count
    far = error(nearest)
    return f"{count}, the worst by {far}: {' '.join(filter(None, _names(nearest)))}" if far else count


def _verdict(row: Row, color: bool) -> str:
    verdict = str(row.verdict)
    return f"{_GREEN if row.verdict in ACCEPTED else _RED}{verdict}{_PLAIN}" if color else verdict


def _cut(body: list[list[str]], width: int) -> list[list[str]]:
    """The same with names cut, the longest first, until a row takes no more than `width` columns."""
    widths = [max(len(header) + GAP, *map(len, column)) for header, *column in zip(NARROW, *body, strict=True)]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        longest = max(NAMES, key=lambda column: widths[column])
        if widths[longest] <= SHORTEST:
            break
        widths[longest] -= 1
    return [[_shortened(cell, widths[i]) if i in NAMES else cell for i, cell in enumerate(line)] for line in body]


def _shortened(name: str, width: int) -> str:
    """The end of a long name, which tells it from others, behind an ellipsis."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]


# What there is to say of them


def _is_inapplicable(row: Row) -> bool:
    return row.verdict is Verdict.UNSUPPORTED and row.path is not None


def _inapplicable(rows: Sequence[Row]) -> list[str]:
    """Why paths do not apply: a line for each reason, whatever the dtype."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for row in filter(_is_inapplicable, rows):
        where.setdefault((row.network, row.message), {})[row.candidate] = None
    return [f"{network} {', '.join(who)}: {Verdict.UNSUPPORTED}: {why}" for (network, why), who in where.items()]


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What there is to say beside `agree`."""
    said = Counter(row.message for row in rows if row.verdict is Verdict.AGREE and row.message)
    return [f"{count} that agree: {message}" for message, count in said.items()]


def _custom(rows: Sequence[Row]) -> list[str]:
    """Which custom rules had a part in which candidates' gradients, and which were there and had none."""
    where: dict[tuple[str, bool], dict[str, None]] = {}
    for row in rows:
        for name, ran in (row.custom or {}).items():
            where.setdefault((name, ran), {})[row.candidate] = None
    return [
        f"custom rule {name} {'ran' if ran else 'was applied, but its backward never ran,'} in {', '.join(labels)}"
        for (name, ran), labels in where.items()
    ]


def _captured(rows: Sequence[Row], verbose: bool) -> list[str]:
    """Whose losses were read into graphs, what these take for granted, and why others were not."""
    read: dict[str, None] = {}
    judged_by_values: dict[tuple[str, str], list[str]] = {}
    granted: dict[str, None] = {}
    for row in rows:
        if row.captured:
            read[f"{row.label} ({counted(row.captured, 'op')})"] = None
            granted |= dict.fromkeys(row.remarks)
        elif row.not_captured:
            why = row.not_captured if verbose else row.not_captured.partition("\n")[0]
            judged_by_values.setdefault((row.label, why), []).append(row.parameter or "")
    by_graph = {row.label for row in rows if row.captured}
    lines = [f"captured: {', '.join(read)}"] if read else []
    lines += [
        f"not captured, so judged by its values: {label}{_only(tensors) if label in by_graph else ''}: {why}"
        for (label, why), tensors in judged_by_values.items()
    ]
    shown = list(granted) if verbose else list(granted)[:NOTED]
    more = [f"... and {len(granted) - len(shown)} more (--verbose)"] if len(granted) > len(shown) else []
    return [*lines, *(f"  {remark}" for remark in shown), *more]


def _only(tensors: Sequence[str]) -> str:
    """Which tensors, where it is not all of a candidate's."""
    named = list(dict.fromkeys(tensors))
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f" ({', '.join(named[:NAMED])}{more})"


def _averages(rows: Sequence[Row]) -> list[str]:
    """How large a factor averages would have shown, at the leaf where they show least: a line for each kernel."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.factor is not None and row.verdict is Verdict.AGREE:
            found.setdefault((row.candidate, row.dtype), []).append(row)
    least = {of: max(several, key=lambda row: row.factor or 0.0) for of, several in found.items()}
    return [
        f"averages of {label} in {dtype}: a constant factor of {1 + (row.factor or 0.0):.5g} would have been caught, "
        f"even in {row.parameter}"
        for (label, dtype), row in least.items()
    ]


def _held_against(rows: Sequence[Row]) -> list[str]:
    """From whose gradient errors are measured where there is no reference: one line."""
    dtypes: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.against:
            dtypes.setdefault(row.against, {})[row.dtype] = None
    named = [f"{label} ({', '.join(where)})" for label, where in dtypes.items()]
    return [f"error is the distance from the gradient of {'; '.join(named)}"] if named else []


def _refusals(rows: Sequence[Row], verbose: bool) -> list[str]:
    """Why there is no reference: the first gradient of each network, and how many others; of all if `verbose`."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.refused and row.parameter:
            found.setdefault(row.network, {})[f"{row.network} {row.dtype} {row.parameter}"] = row.refused
    lines = []
    for reasons in found.values():
        (first, why), *others = reasons.items()
        shown = [(first + (f" and {len(others)} more" if others else ""), why)]
        lines += [f"{place}: no reference in 256 bits: {why}" for place, why in (reasons.items() if verbose else shown)]
    return lines


def _textbook(rows: Sequence[Row]) -> list[str]:
    """The figure by which textbooks judge a candidate as a whole."""
    figures = {row.cell: row.textbook for row in rows if row.textbook is not None}
    named = [
        f"{network} {dtype} {who} {figure:.0e}{'' if figure < TEXTBOOK_RULE else ' FAILS'}"
        for (network, dtype, who, _), figure in figures.items()
    ]
    rule = f"relative difference of all tensors at step 1e-5, which textbooks ask to be below {TEXTBOOK_RULE:.0e}"
    return [f"{rule}: {', '.join(named)}"] if named else []


# What they add up to


def summary(rows: Sequence[Row]) -> str:
    """How many gradients got which verdict, and how many candidates did not run."""
    ran = [row for row in rows if row.parameter is not None]
    parts = [f"{counted(len(ran), 'gradient')}: {_counts(ran)}"] if ran else ["no gradients"]
    others = [row for row in rows if row.parameter is None]
    if others:
        parts.append(f"{len(others)} without gradients: {_counts(others)}")
    return "; ".join(parts)


def counted(number: int, what: str) -> str:
    """Such as "1 gradient", "2 gradients"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


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
