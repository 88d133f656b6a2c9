"""The report as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradwitness.evidence.exercise import Exercise
from gradwitness.report.row import Row

__all__ = ["jsonable", "schema", "to_json"]


def to_json(
    ok: bool,
    environment: Mapping[str, Any],
    rows: Sequence[Row],
    exercise: Mapping[str, Sequence[Exercise]],
    shard: Mapping[str, Any] | None = None,
) -> str:
    """A report, with the keys of schema.json: a row has an attribute of each name.

    shard: what is kept of a run that is split, if this one is.
    NaN and infinity, which JSON lacks, are the strings "nan", "inf" and "-inf".
    """
    described = schema()["properties"]
    keys = described["rows"]["items"]["properties"]
    document = {
        "schema": described["schema"]["const"],
        "ok": ok,
        "environment": environment,
        "rows": [{key: getattr(row, key) for key in keys} for row in rows],
        "exercise": {network: [asdict(one) for one in calls] for network, calls in exercise.items()},
    }
    if shard is not None:
        document["shard"] = shard
    return json.dumps(jsonable(document), indent=1, allow_nan=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    text = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def jsonable(value: Any) -> Any:
    """With lists for tuples, and text for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: jsonable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
