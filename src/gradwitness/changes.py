"""Two reports of the same things, an old one and a new one: what changed, and what of it is worse."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import exp, isinf, log
from pathlib import Path
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.timing.comparing import Compared, common_shift, compared
from gradwitness.verdict import ACCEPTED

__all__ = ["Change", "changes", "read"]

GROWTH = 2.0  # floors that an error may grow by: what it is within one floor is chance
MENTIONED = 1.1  # how many times faster or slower a machine is when that is said
WHERE = ("network", "candidate", "device", "dtype", "parameter")
Record = Mapping[str, Any]
Place = tuple[str, ...]
Told = Callable[[Place, Record, Record], Iterator[tuple[str, bool]]]


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was.

    worse: whether that is a reason not to go on; None for what is no change of what was verified or timed, but of the
    machine.
    """

    where: str
    what: str
    worse: bool | None

    def __str__(self) -> str:
        kind = "beside" if self.worse is None else "worse" if self.worse else "changed"
        return f"{kind}: {self.where}: {self.what}"


def read(path: Path) -> Record:
    """The document that `--json` wrote, of `gradwitness verify` or `gradwitness bench`. Raises GradwitnessError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GradwitnessError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise GradwitnessError(f"{path}: is no JSON ({error}); give what --json wrote") from None
    if not isinstance(document, dict) or not {"rows", "timings"} & document.keys():
        raise GradwitnessError(f"{path}: has neither rows nor timings; give what verify --json or bench --json wrote")
    return document


def changes(old: Record, new: Record) -> list[Change]:
    """What of the old is otherwise in the new: verdicts, errors beyond their floor, times beyond the spreads of both.

    Raises GradwitnessError where one is of verify and the other of bench.
    """
    if ("rows" in old) != ("rows" in new):
        raise GradwitnessError("one is a report of verify and the other one of bench: give two of a kind")
    key = "rows" if "rows" in old else "timings"
    before, after = (_by_place(document[key]) for document in (old, new))
    beside, told = ([], _gradients) if key == "rows" else _timed(before, after)
    found = [Change(_named(place), "is no longer there", worse=True) for place in before if place not in after]
    found += [Change(_named(place), "is new", worse=False) for place in after if place not in before]
    for place in before:
        if place in after:
            found += (Change(_named(place), what, worse) for what, worse in told(place, before[place], after[place]))
    return [*beside, *sorted(found, key=lambda change: not change.worse)]


def _by_place(records: list[Record]) -> dict[Place, Record]:
    return {tuple(str(record.get(name) or "") for name in WHERE): record for record in records}


def _named(place: Place) -> str:
    network, candidate, device, dtype, parameter = place
    return " ".join(part for part in (network, dtype, "" if device == "cpu" else device, candidate, parameter) if part)


def _gradients(place: Place, old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    yield from _verdicts(old, new)
    error, other, floor = (_number(x) for x in (old.get("error"), new.get("error"), new.get("floor")))
    if None in (error, other) or not floor:
        return
    assert error is not None
    assert other is not None
    if other - error > GROWTH * floor:
        yield f"the error grew from {error:.3g} to {other:.3g}, {(other - error) / floor:.3g} noise floors", True


def _timed(old: Mapping[Place, Record], new: Mapping[Place, Record]) -> tuple[list[Change], Told]:
    """(what is said of whole cells, what tells of each place)."""
    both = {
        (place, phase): (turns, new[place]["samples"][phase])
        for place, record in old.items()
        for phase, turns in (record["samples"].items() if place in new else ())
        if phase in new[place]["samples"]
    }
    found = compared(both)
    by_cell: dict[Place, dict[Hashable, list[float]]] = {}
    for (place, _), one in found.items():
        by_cell.setdefault(_cell(place), {}).setdefault(place, []).append(one.shift)
    common = {cell: common_shift(shifts) for cell, shifts in by_cell.items()}
    beside = [
        Change(_named(cell), f"all candidates are {_times_as_fast(shift)}: the machine, or what they share", None)
        for cell, shift in common.items()
        if abs(shift) > log(MENTIONED)
    ]
    return beside, partial(_times, found, common)


def _times(
    found: Mapping[tuple[Place, str], Compared], common: Mapping[Place, float], place: Place, old: Record, new: Record
) -> Iterator[tuple[str, bool]]:
    yield from _verdicts(old, new)
    for phase, before in old["times"].items():
        after, name = new["times"].get(phase), phase.replace("_", " + ")
        one = found.get((place, phase))
        if after is None or one is None:
            yield f"{name} is no longer timed", True
        elif isinf(one.chance):
            yield f"{name} cannot be compared: it was timed in one process each, give bench --processes 3", False
        elif one.is_beyond(shared := common[_cell(place)]):
            beside = f", all candidates {_times_as_fast(shared)}" if abs(shared) > log(MENTIONED) else ""
            shown = f"{1e3 * before['middle']:.4g} ms -> {1e3 * after['middle']:.4g} ms"
            yield f"{name} is {_times_as_fast(one.shift)}{beside}: {shown}", one.shift > shared


def _cell(place: Place) -> Place:
    """Where candidates took turns."""
    network, _, device, dtype, _ = place
    return network, "", device, dtype, ""


def _times_as_fast(shift: float) -> str:
    return f"{exp(abs(shift)):.2f} times {'slower' if shift > 0 else 'faster'}"


def _verdicts(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    before, after = old["verdict"], new["verdict"]
    if before != after:
        yield f"{before} -> {after}" + (f": {said}" if (said := _said(new)) else ""), after not in ACCEPTED


def _said(record: Record) -> str:
    return str(record.get("message") or record.get("why") or "")


def _number(x: Any) -> float | None:
    return None if x is None else float(x)
