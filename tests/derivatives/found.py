"""What the tests of further derivatives share."""

from __future__ import annotations

from typing import Any

import gradwitness as gw

__all__ = ["by_candidate", "derivative"]


def derivative(which: str, loss: Any, *rest: Any, **how: Any) -> gw.Report:
    """In float64, if nothing else is said."""
    return gw.verify(loss, *rest, **({"derivative": which, "dtypes": "float64"} | how))


def by_candidate(report: gw.Report) -> dict[str, set[str]]:
    """The verdicts of each candidate."""
    found: dict[str, set[str]] = {}
    for row in report.rows:
        found.setdefault(row.candidate, set()).add(str(row.verdict))
    return found
