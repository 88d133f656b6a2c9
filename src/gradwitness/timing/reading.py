"""Times, read back from their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradwitness.report import Address
from gradwitness.report.reading import number
from gradwitness.timing.engine import Benchmark
from gradwitness.timing.records import Grown, Timing
from gradwitness.timing.roofline import Rates, Work
from gradwitness.timing.statistics import Interval

__all__ = ["benchmark_of"]

WHERE = ("network", "candidate", "backend", "device", "dtype")
INTERVALS = ("times", "ratios")


def benchmark_of(document: Mapping[str, Any]) -> Benchmark:
    """The times that `Benchmark.json` wrote, of a whole run or of a shard."""
    return Benchmark(tuple(_timing(record) for record in document["timings"]), document["environment"])


def _timing(record: Mapping[str, Any]) -> Timing:
    known = {field.name: record[field.name] for field in fields(Timing) if field.name in record}
    intervals = {name: {phase: _interval(ends) for phase, ends in record[name].items()} for name in INTERVALS}
    work = {phase: Work(**amounts) for phase, amounts in record.get("work", {}).items()}
    rates = None if record.get("rates") is None else Rates(**record["rates"])
    grown = None if record.get("grown") is None else Grown(**record["grown"])
    where = Address(**{name: record[name] for name in WHERE})
    return Timing(**known | intervals | {"where": where, "work": work, "rates": rates, "grown": grown})


def _interval(ends: Mapping[str, Any]) -> Interval:
    return Interval(**{name: number(value) for name, value in ends.items()})
