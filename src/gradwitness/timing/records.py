"""What is kept of a candidate that was timed, or was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradwitness.report import Address
from gradwitness.timing.roofline import Rates, Work
from gradwitness.timing.statistics import Interval

__all__ = ["Grown", "Timing", "Turns"]

Turns = list[list[float]]  # the median seconds of each turn, by process


@dataclass(frozen=True)
class Grown:
    """Which size of a network this is: the network, what of it grows ("width"), and how large that is."""

    network: str
    along: str
    size: int


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
    work: the flops and the least bytes of each phase, counted from the graph; empty for a loss without one.
    rates: what the machine does at best in this dtype; None where that is not known.
    grown: which of several sizes of a network this is, if it is one of them.
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
    work: Mapping[str, Work] = field(default_factory=dict)
    rates: Rates | None = None
    grown: Grown | None = None

    @property
    def of_limit(self) -> dict[str, float]:
        """The least seconds that each phase can take here, as a part of those that it takes. A part above 1 means that
        the bytes were in a cache."""
        if self.rates is None:
            return {}
        known = self.work.keys() & self.times.keys()
        return {p: self.rates.least(self.work[p]) / self.times[p].middle for p in self.times if p in known}
