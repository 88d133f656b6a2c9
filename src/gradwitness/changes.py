"""Two reports of the same things, an old one and a new one: what changed, and what of it is worse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.verdict import ACCEPTED

__all__ = ["Change", "changes", "read"]

GROWTH = 2.0  # floors that an error may grow by: what it is within one floor is chance
WHERE = ("network", "candidate", "device", "dtype", "parameter")
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was. worse: whether that is a reason not to go on."""

    where: str
    what: str
    worse: bool

    def __str__(self) -> str:
        return f"{'worse' if self.worse else 'changed'}: {self.where}: {self.what}"


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
    """What of the old is otherwise in the new: verdicts, errors beyond their floor, times beyond their interval.

    Raises GradwitnessError where one is of verify and the other of bench.
    """
    if ("rows" in old) != ("rows" in new):
        raise GradwitnessError("one is a report of verify and the other one of bench: give two of a kind")
    key, compared = ("rows", _gradients) if "rows" in old else ("timings", _times)
    before, after = (_by_place(document[key]) for document in (old, new))
    found = [Change(_named(place), "is no longer there", worse=True) for place in before if place not in after]
    found += [Change(_named(place), "is new", worse=False) for place in after if place not in before]
    for place in before:
        if place in after:
            found += (Change(_named(place), what, worse) for what, worse in compared(before[place], after[place]))
    return sorted(found, key=lambda change: not change.worse)


def _by_place(records: list[Record]) -> dict[tuple[str, ...], Record]:
    return {tuple(str(record.get(name) or "") for name in WHERE): record for record in records}


def _named(place: tuple[str, ...]) -> str:
    network, candidate, device, dtype, parameter = place
    return " ".join(part for part in (network, dtype, "" if device == "cpu" else device, candidate, parameter) if part)


def _gradients(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    yield from _verdicts(old, new)
    error, other, floor = (_number(x) for x in (old.get("error"), new.get("error"), new.get("floor")))
    if None in (error, other) or not floor:
        return
    assert error is not None
    assert other is not None
    if other - error > GROWTH * floor:
        yield f"the error grew from {error:.3g} to {other:.3g}, {(other - error) / floor:.3g} noise floors", True


def _times(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    yield from _verdicts(old, new)
    for phase, before in old["times"].items():
        after = new["times"].get(phase)
        name = phase.replace("_", " + ")
        if after is None:
            yield f"{name} is no longer timed", True
        elif after["low"] > before["high"]:
            yield f"{name} is {after['middle'] / before['middle']:.2f} times slower: {_seconds(before, after)}", True
        elif after["high"] < before["low"]:
            yield f"{name} is {before['middle'] / after['middle']:.2f} times faster: {_seconds(before, after)}", False


def _verdicts(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    before, after = old["verdict"], new["verdict"]
    if before != after:
        yield f"{before} -> {after}" + (f": {said}" if (said := _said(new)) else ""), after not in ACCEPTED


def _said(record: Record) -> str:
    return str(record.get("message") or record.get("why") or "")


def _seconds(before: Record, after: Record) -> str:
    return f"{1e3 * before['middle']:.4g} ms -> {1e3 * after['middle']:.4g} ms"


def _number(x: Any) -> float | None:
    return None if x is None else float(x)
