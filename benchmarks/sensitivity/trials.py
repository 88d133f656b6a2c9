"""A checker at one setting, on the whole corpus: what it caught, where it raised a false alarm, how long it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.sensitivity.cells import REGIMES, Cell
from benchmarks.sensitivity.checkers import CHECKERS, PEERS, Outcome, Says, run
from benchmarks.sensitivity.faults import Fault, planted
from benchmarks.sensitivity.layers import LAYERS

__all__ = ["SETTINGS", "TOLERANCES", "smallest_tolerance", "trials"]

TOLERANCES = tuple(float(f"{digit}e{power}") for power in range(-14, 3) for digit in (1, 2, 5))
UNIT_SCALE = tuple(name for name, regime in REGIMES.items() if regime.scale == 1 and regime.offset == 0)
SETTINGS = {
    "default": "as it comes",
    "best": "the smallest tolerance without a false alarm on the correct cells",
    "best at unit scale": f"the same on the regimes {', '.join(UNIT_SCALE)} alone",
}
Progress = Callable[[str], None]


def trials(
    faults: Sequence[Fault], cells: Sequence[Cell], dtypes: Iterable[str], *, progress: Progress
) -> list[dict[str, Any]]:
    """One record for each checker, setting and dtype. gradwitness has no tolerance to set."""
    found = []
    for dtype in dtypes:
        for name in CHECKERS:
            for setting in SETTINGS if name in PEERS else ("default",):
                progress(f"{dtype}: {name}, {setting}")
                found.append(_trial(name, setting, faults, cells, dtype))
    return found


def smallest_tolerance(name: str, cells: Iterable[Cell], dtype: str) -> float | None:
    """The first of TOLERANCES, as atol and rtol, with which a checker passes every cell; None if none does.

    A larger tolerance passes whatever a smaller one does, so that each cell need only be tried from the one that the
    cells before it have asked for.
    """
    place = 0
    for cell in cells:
        while run(CHECKERS[name], LAYERS[cell.layer], cell, dtype, TOLERANCES[place]).says is not Says.PASS:
            place += 1
            if place == len(TOLERANCES):
                return None
    return TOLERANCES[place]


def _trial(name: str, setting: str, faults: Sequence[Fault], cells: Sequence[Cell], dtype: str) -> dict[str, Any]:
    tolerance = None
    if setting != "default":
        easy = [cell for cell in cells if setting == "best" or cell.regime in UNIT_SCALE]
        tolerance = smallest_tolerance(name, easy, dtype)
    check = CHECKERS[name]
    on_cells = {str(cell): run(check, LAYERS[cell.layer], cell, dtype, tolerance) for cell in cells}
    on_faults = {fault.name: run(check, planted(fault), fault.cell, dtype, tolerance) for fault in faults}
    return {
        "checker": name,
        "setting": setting,
        "dtype": dtype,
        "tolerance": tolerance,
        "caught": _named(on_faults, Says.FAULT),
        "doubted": _named(on_faults, Says.INCONCLUSIVE),
        "blamed_another": _named(on_faults, Says.WRONG_BLAME),
        "alarms": _named(on_cells, Says.FAULT, Says.WRONG_BLAME),
        "inconclusive": _named(on_cells, Says.INCONCLUSIVE),
        "seconds": {"cells": _seconds(on_cells), "faults": _seconds(on_faults)},
    }


def _named(outcomes: dict[str, Outcome], *says: Says) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome.says in says]


def _seconds(outcomes: dict[str, Outcome]) -> float:
    return round(sum(outcome.seconds for outcome in outcomes.values()), 3)
