"""A checker at one setting, on the whole corpus: what it caught, where it raised a false alarm, how long it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.sensitivity.cells import REGIMES, Cell
from benchmarks.sensitivity.checkers import CHECKERS, PEERS, Outcome, Says, run
from benchmarks.sensitivity.faults import Fault, planted
from benchmarks.sensitivity.layers import LAYERS

__all__ = ["TOLERANCES", "UNIT_SCALE", "best_tolerances", "trials"]

TOLERANCES = tuple(float(f"{digit}e{power}") for power in range(-14, 3) for digit in (1, 2, 5))
UNIT_SCALE = tuple(name for name, regime in REGIMES.items() if regime.scale == 1 and regime.offset == 0)
Progress = Callable[[str], None]
Trial = dict[str, Any]


def trials(faults: Sequence[Fault], cells: Sequence[Cell], dtype: str, *, progress: Progress) -> list[Trial]:
    """A record for each checker and setting: its default, the smallest tolerance without a false alarm on the cells,
    and the same for the cells at unit scale alone. gradwitness has no tolerance to set."""
    found = []
    for name in CHECKERS:
        progress(f"{dtype}: {name}")
        found.append(_trial(name, "default", None, faults, cells, dtype))
        for setting, tolerance in best_tolerances(name, cells, dtype).items() if name in PEERS else ():
            progress(f"{dtype}: {name}, {setting}: {tolerance}")
            # a larger tolerance passes whatever a smaller one does: what was searched need not be run again
            others = [] if setting == "best" else [cell for cell in cells if cell.regime not in UNIT_SCALE]
            found.append(_trial(name, setting, tolerance, faults, others, dtype))
    return found


def best_tolerances(name: str, cells: Iterable[Cell], dtype: str) -> dict[str, float]:
    """The first of TOLERANCES, as atol and rtol, with which a checker passes every cell at unit scale, and every cell.

    Infinite if none does.
    """
    easy = [cell for cell in cells if cell.regime in UNIT_SCALE]
    hard = [cell for cell in cells if cell.regime not in UNIT_SCALE]
    of_easy = _smallest(name, easy, dtype, 0)
    of_all = _smallest(name, hard, dtype, of_easy)
    ladder = (*TOLERANCES, float("inf"))
    return {"best": ladder[of_all], "best at unit scale": ladder[of_easy]}


def _smallest(name: str, cells: Iterable[Cell], dtype: str, place: int) -> int:
    """Where in TOLERANCES all cells pass, from `place` upwards; beyond the end if nowhere."""
    for cell in cells:
        while place < len(TOLERANCES) and _objects(name, cell, dtype, TOLERANCES[place]):
            place += 1
    return place


def _objects(name: str, cell: Cell, dtype: str, tolerance: float) -> bool:
    return run(CHECKERS[name], LAYERS[cell.layer], cell, dtype, tolerance).says is not Says.PASS


def _trial(
    name: str, setting: str, tolerance: float | None, faults: Sequence[Fault], cells: Sequence[Cell], dtype: str
) -> Trial:
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
        "seconds_faults": _seconds(on_faults),
        "seconds_cells": _seconds(on_cells) if setting == "default" else None,
    }


def _named(outcomes: Mapping[str, Outcome], *says: Says) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome.says in says]


def _seconds(outcomes: Mapping[str, Outcome]) -> float:
    return round(sum(outcome.seconds for outcome in outcomes.values()), 2)
