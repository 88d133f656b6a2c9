"""Times as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gradwitness.report.document import jsonable
from gradwitness.timing.records import Timing
from gradwitness.timing.statistics import CONFIDENCE

__all__ = ["to_json"]

SCHEMA = 1  # raised when a key changes its meaning or goes


def to_json(environment: Mapping[str, Any], timings: Sequence[Timing], shard: Mapping[str, Any] | None = None) -> str:
    """The environment, and a record of each candidate: seconds, bytes, and the samples behind the intervals.

    shard: what is kept of a run that is split, if this one is.
    """
    document = {
        "benchmark": SCHEMA,
        "confidence": CONFIDENCE,
        "environment": environment,
        "timings": [_record(timing) for timing in timings],
    }
    if shard is not None:
        document["shard"] = shard
    return json.dumps(jsonable(document), indent=1, allow_nan=False)


def _record(timing: Timing) -> dict[str, Any]:
    found = asdict(timing)
    where: dict[str, Any] = found.pop("where")
    del where["parameter"], where["path"]
    return where | found | {"of_limit": timing.of_limit}
