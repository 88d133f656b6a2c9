"""The record: what was found by kind, under a label for each state of the judge that was asked."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.adversary.corpus import VERSION
from benchmarks.adversary.measure import Finding

__all__ = ["NOW", "RESULTS", "load", "recorded", "save"]

RESULTS = Path(__file__).with_name("results.json")
NOW = "now"
PACKAGES = ("numpy", "torch", "jax", "gradwitness")
Record = dict[str, Any]


def recorded(findings: Iterable[Finding], *, quick: bool) -> Record:
    """One label's: its kinds, what it ran in, and which corpus."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    return {
        "corpus": VERSION + (", a sample" if quick else ""),
        "environment": _environment(),
        "kinds": {kind: _of_kind(of_kind) for kind, of_kind in by_kind.items()},
    }


def _of_kind(findings: list[Finding]) -> Record:
    return {
        "right": dict(Counter(f.counts_as for f in findings if f.is_right)),
        "wrong": dict(Counter(f.counts_as for f in findings if not f.is_right)),
        "demanded": sum(f.demanded for f in findings),
        "seconds": round(sum(f.seconds for f in findings), 1),
        "slowest": round(max(f.seconds for f in findings), 1),
        "false greens": [_told(f) for f in findings if f.is_false_green],
        "false alarms": [_told(f) for f in findings if f.is_false_alarm],
        "not agreed": [_told(f) for f in findings if f.demanded and f.counts_as == "inconclusive"],
        "not judged": [_told(f) for f in findings if f.counts_as in ("crashed", "timeout")],
    }


def _told(finding: Finding) -> Record:
    return {
        "case": finding.case,
        "subject": finding.subject,
        "verdicts": list(finding.verdicts),
        "message": finding.message,
    }


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def load(path: Path = RESULTS) -> dict[str, Record]:
    """By label; nothing, if there is no record yet."""
    if not path.exists():
        return {}
    found: dict[str, Record] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save(record: Record, label: str, path: Path = RESULTS, order: Iterable[str] = ()) -> dict[str, Record]:
    """All records, with this one under its label: kinds that it does not have stay as they were, if they are there."""
    records = load(path)
    before: Mapping[str, Any] = records.get(label, {}).get("kinds", {})
    kinds = {**before, **record["kinds"]}
    names = [kind for kind in order if kind in kinds] or list(kinds)
    records[label] = {**record, "kinds": {kind: kinds[kind] for kind in names}}
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return records
