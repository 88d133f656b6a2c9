"""The report as numbers under names, for a tracker of experiments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["metrics"]


def metrics(rows: Sequence[Row], *, ok: bool) -> dict[str, float]:
    """`ok` (1 or 0), how many gradients there are and how many of each verdict; and by network, candidate and dtype the
    largest error in floors, and the seconds of setup, where they are known."""
    found: dict[str, float] = {"ok": float(ok), "gradients": sum(row.parameter is not None for row in rows)}
    found |= {str(verdict): sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    for (network, dtype, candidate, device), cell in groupby(rows, lambda row: row.cell):
        place, mine = f"{network}/{candidate}/{dtype}" + ("" if device == "cpu" else f"/{device}"), list(cell)
        errors = [_in_floors(row.error, row.floor) for row in mine if row.error is not None and row.floor is not None]
        seconds = [row.setup_seconds for row in mine if row.setup_seconds is not None]
        found |= {f"{place}/error_in_floors": max(errors)} if errors else {}
        found |= {f"{place}/setup_seconds": max(seconds)} if seconds else {}
    return found


def _in_floors(error: float, floor: float) -> float:
    return error / floor if floor else math.inf if error else 0.0
