"""docs/sixteen-bits.md: its tables, written from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

__all__ = ["PAGE", "tables", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "sixteen-bits.md"
RULES = ("gradwitness", "twice", "tolerance")
FACTORS = ["dtype", "kernel", "tensor", "elements", "gradwitness", "twice the error of plain", "tolerance of 2%"]
PLACES = ["dtype", "fault", *[f"{kernel}" for kernel in ("attention", "rms_norm", "swiglu", "cross_entropy", "rope")]]
ALARMS = ["dtype", "right runs", *FACTORS[4:]]
Results = Mapping[str, Mapping[str, Any]]


def tables(results: Results) -> dict[str, str]:
    """By the name under which the page has it."""
    return {
        "factors": tabulate(list(_factors(results)), FACTORS),
        "places": tabulate(list(_places(results)), PLACES),
        "alarms": tabulate(list(_alarms(results)), ALARMS),
    }


def _factors(results: Results) -> Iterator[list[Any]]:
    """The smallest factor everywhere that every draw shows, by tensor."""
    for found in results.values():
        for path, smallest in found["smallest"]["everywhere"].items():
            shown = [_factor(smallest[rule]) for rule in RULES]
            yield [found["dtype"], found["kernel"], path, found["elements"][path], *shown]


def _places(results: Results) -> Iterator[list[Any]]:
    """The same for a factor in one place, of each kernel at the tensor where it shows least."""
    faults = dict.fromkeys(fault for found in results.values() for fault in found["smallest"] if fault != "everywhere")
    for dtype in dict.fromkeys(found["dtype"] for found in results.values()):
        for fault in faults:
            of = {f["kernel"]: f["smallest"].get(fault, {}) for f in results.values() if f["dtype"] == dtype}
            least = {kernel: max((s["gradwitness"] for s in by.values()), default=None) for kernel, by in of.items()}
            yield [dtype, fault, *("" if (x := least.get(kernel)) is None else _factor(x) for kernel in PLACES[2:])]


def _alarms(results: Results) -> Iterator[list[Any]]:
    """How many right runs were accused in any tensor, at most."""
    for dtype in dict.fromkeys(found["dtype"] for found in results.values()):
        mine = [found for found in results.values() if found["dtype"] == dtype]
        counts = [sum(sum(found["alarms"][rule].values()) for found in mine) for rule in RULES]
        yield [dtype, sum(found["runs"] for found in mine), *counts]


def _factor(x: float) -> str:
    return "none" if x == float("inf") else f"{x:g}"


def write(results: Results) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        head = f"<!-- table: {name} -->\n```\n"
        before, _, rest = text.partition(head)
        text = f"{before}{head}{table}\n```{rest.partition('```')[2]}"
    PAGE.write_text(text, encoding="utf-8")
