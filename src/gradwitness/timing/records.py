"""What is kept of a candidate that was timed, or was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradwitness.report import Address
from gradwitness.timing.statistics import Interval

__all__ = ["Timing", "Turns"]

Turns = list[list[float]]  # the median seconds of each turn, by process


@dataclass(frozen=True)
class Timing:
    """What was measured of one candidate, in one dtype on one device.

    where: whose it is; `parameter` is None. parameters: how many numbers it is differentiated by.
    verdict: that on its gradients, the worst. why: why it was not timed, if it was not.
    times: seconds of a call, by phase. ratios: the same over that of the first candidate of the table, round by round.
    alone: why there is no time of its backward alone, if there is none.
    setup_seconds: what preparing took: tracing, compiling, transfer.
    memory: the most bytes that forward and backward take beyond what the process holds; None if that is not known.
    samples: the median seconds of each turn, by phase and process.
    threads: how many each candidate had.
    """

    where: Address
    parameters: int
    verdict: str
    threads: int
    why: str = ""
    times: Mapping[str, Interval] = field(default_factory=dict)
    ratios: Mapping[str, Interval] = field(default_factory=dict)
    alone: str = ""
    setup_seconds: float | None = None
    memory: int | None = None
    samples: Mapping[str, Turns] = field(default_factory=dict)
