"""A report, read back from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradwitness.evidence.exercise import Exercise
from gradwitness.report.report import Report
from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["number", "report_of"]

TEXTS = frozenset({"nan", "inf", "-inf"})  # what JSON has no number for
FIGURES = frozenset(field.name for field in fields(Row) if "float" in str(field.type))


def report_of(document: Mapping[str, Any]) -> Report:
    """The report that `Report.json` wrote, of a whole run or of a shard: it shows what that showed, and is as green.

    What one judgement says to the next is not in the JSON, nor are the candidates.
    """
    kept = document.get("shard", {})
    return Report(
        tuple(_row(record) for record in document["rows"]),
        document["environment"],
        tuple(kept.get("allow", ())),
        tuple(kept.get("require", ())),
        {network: tuple(verdicts) for network, verdicts in kept.get("allowed", {}).items()},
        exercise={network: tuple(map(_exercise, calls)) for network, calls in document["exercise"].items()},
    )


def number(value: Any) -> Any:
    """With the numbers that JSON writes as text."""
    return float(value) if isinstance(value, str) and value in TEXTS else value


def _row(record: Mapping[str, Any]) -> Row:
    given = {name: number(value) if name in FIGURES else value for name, value in record.items()}
    shape = None if given["shape"] is None else tuple(given["shape"])
    remarks = tuple(given.get("remarks", ()))
    return Row(**given | {"verdict": Verdict(given["verdict"]), "shape": shape, "remarks": remarks})


def _exercise(record: Mapping[str, Any]) -> Exercise:
    given = dict(record) | {name: number(record[name]) for name in ("lowest", "highest")}
    return Exercise(**given | {name: tuple(record[name]) for name in ("reached", "missed")})
