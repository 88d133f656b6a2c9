"""The records as text: the blocks of docs/adversary.md, side by side where there are several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tabulate import tabulate

__all__ = ["BLOCKS", "counts", "named", "totals"]

Records = Mapping[str, Mapping[str, Any]]
NOTHING = "none"


def run(records: Records) -> str:
    """A line for each label: what was asked in which environment."""
    lines = []
    for label, record in records.items():
        kinds = record["kinds"].values()
        environment = ", ".join(f"{name} {version}" for name, version in record["environment"].items())
        asked = " and ".join(f"{sum(sum(kind[what].values()) for kind in kinds)} {what}" for what in ("wrong", "right"))
        seconds = sum(kind["seconds"] for kind in kinds)
        lines += [f"{label}: corpus {record['corpus']}, {asked} gradients in {seconds:.0f} s", f"    {environment}"]
    return "\n".join(lines)


def counts(records: Records) -> str:
    """By kind: of wrong gradients how many are shown and accepted, of right ones accused and inconclusive."""
    rows = [[kind, *_cells(record, kind, label)] for label, kind, record in _by_kind(records)]
    rows += [["all", label, *_figures(_all(record))] for label, record in records.items()]
    headers = ("kind", "judge", "wrong", "shown", "inconclusive", "accepted", "right", "agreed", "inconcl.", "accused")
    return _table(rows, (*headers, "not judged", "s"))


def _by_kind(records: Records) -> list[tuple[str, str, Mapping[str, Any]]]:
    kinds = dict.fromkeys(kind for record in records.values() for kind in record["kinds"])
    return [(label, kind, r) for kind in kinds for label, r in records.items() if kind in r["kinds"]]


def _cells(record: Mapping[str, Any], kind: str, label: str) -> list[Any]:
    return [label, *_figures(record["kinds"][kind])]


def _figures(found: Mapping[str, Any]) -> list[Any]:
    wrong, right = found["wrong"], found["right"]
    unjudged = sum(of.get(what, 0) for of in (wrong, right) for what in ("crashed", "timeout"))
    return [
        sum(wrong.values()),
        *(wrong.get(what, 0) for what in ("shown", "inconclusive", "accepted")),
        sum(right.values()),
        *(right.get(what, 0) for what in ("agreed", "inconclusive", "accused")),
        unjudged,
        f"{found['seconds']:.0f}",
    ]


def _all(record: Mapping[str, Any]) -> dict[str, Any]:
    kinds = record["kinds"].values()
    return {
        "wrong": sum((Counter(kind["wrong"]) for kind in kinds), Counter()),
        "right": sum((Counter(kind["right"]) for kind in kinds), Counter()),
        "seconds": sum(kind["seconds"] for kind in kinds),
    }


def totals(record: Mapping[str, Any]) -> str:
    """The last line of a run."""
    wrong, right = (sum(of.values()) for of in (_all(record)["wrong"], _all(record)["right"]))
    greens, alarms = (
        sum(len(kind[what]) for kind in record["kinds"].values()) for what in ("false greens", "false alarms")
    )
    return f"{greens} of {wrong} wrong gradients accepted, {alarms} of {right} right ones accused"


def named(records: Records, what: str) -> str:
    """By loss, how many such cases each judge had."""
    found = {
        label: Counter((kind, case["subject"]) for kind, of in record["kinds"].items() for case in of[what])
        for label, record in records.items()
    }
    places = dict.fromkeys(place for counter in found.values() for place in counter)
    if not places:
        return NOTHING
    rows = [[*place, *(counter[place] for counter in found.values())] for place in places]
    return _table(rows, ("kind", "loss", *found))


def _table(rows: list[list[Any]], headers: tuple[str, ...]) -> str:
    lines = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=_aligned(rows)).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _aligned(rows: list[list[Any]]) -> list[str]:
    return ["left" if isinstance(cell, str) and not cell.isdigit() else "right" for cell in rows[0]]


BLOCKS: Mapping[str, Callable[[Records], str]] = {
    "run": run,
    "counts": counts,
    "false greens": lambda records: named(records, "false greens"),
    "false alarms": lambda records: named(records, "false alarms"),
    "not agreed": lambda records: named(records, "not agreed"),
    "not judged": lambda records: named(records, "not judged"),
}
