"""The report where text is laid out: as HTML in a notebook, as Markdown in the summary of a CI run."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from gradwitness.report.row import Row
from gradwitness.report.table import NARROW, brief, summary
from gradwitness.verdict import ACCEPTED

__all__ = ["to_html", "to_markdown"]

SHOWN = 20  # rows of a table in Markdown, and lines of what fails; the rest is counted
CELL = "text-align: left; padding: 0.2em 0.8em"
GREEN, RED = "#1a7f37", "#cf222e"  # readable on white and on black


def to_html(rows: Sequence[Row], failures: Sequence[str], remarks: Sequence[str] = ()) -> str:
    """A heading, what fails, the table, and remarks; nothing of it is run as script or markup of a user's own."""
    color = RED if failures else GREEN
    head = f'<p style="color: {color}; font-weight: 600">gradwitness: {html.escape(summary(rows))}</p>'
    reasons = "".join(f"<li><code>{html.escape(line)}</code></li>" for line in _some(failures))
    body = "".join(_html_line(row, cells) for row, cells in brief(rows))
    headers = "".join(f'<th style="{CELL}">{header}</th>' for header in NARROW)
    table = f"<table><thead><tr>{headers}</tr></thead><tbody>{body}</tbody></table>"
    below = "".join(f"<div>{html.escape(line)}</div>" for line in _some(remarks))
    return f"<div>{head}{f'<ul>{reasons}</ul>' if reasons else ''}{table}{below}</div>"


def _html_line(row: Row, cells: Sequence[str]) -> str:
    colors = [""] * (len(cells) - 1) + [f"; color: {GREEN if row.verdict in ACCEPTED else RED}"]
    inside = (f'<td style="{CELL}{color}">{html.escape(cell)}</td>' for cell, color in zip(cells, colors, strict=True))
    return f"<tr>{''.join(inside)}</tr>"


def to_markdown(rows: Sequence[Row], failures: Sequence[str]) -> str:
    """A heading with the outcome, what fails, and the table, folded if all is well."""
    from tabulate import tabulate

    head = f"### {'❌' if failures else '✅'} gradwitness: {summary(rows)}"
    shown = brief(rows)
    cells = [[_plain(cell) for cell in line] for _, line in shown[:SHOWN]]
    table = tabulate(cells, NARROW, tablefmt="github", disable_numparse=True)
    more = f"\n\n… and {len(shown) - SHOWN} rows more" if len(shown) > SHOWN else ""
    reasons = "\n".join(f"- `{_in_code(line)}`" for line in _some(failures))
    folded = f"<details{' open' if failures else ''}><summary>by candidate</summary>\n\n{table}{more}\n\n</details>"
    return "\n\n".join(part for part in (head, reasons, folded) if part) + "\n"


def _plain(text: str) -> str:
    """One line of a cell, in which nothing is markup."""
    return re.sub(r"([\\|`*_\[\]<>!])", r"\\\1", " ".join(text.split()))


def _in_code(text: str) -> str:
    """One line of code, which nothing in it ends."""
    return " ".join(text.split()).replace("`", "'")


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
