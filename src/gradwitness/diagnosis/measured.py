"""The flow through a network, and what was found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from gradwitness.diagnosis.flow import Flow, Passing
from gradwitness.diagnosis.stages import Stage
from gradwitness.findings import Finding

__all__ = ["Measured"]


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """What was measured and found. It is falsy if anything was found, or if a backend gives something else.

    name: the network. dtype: that of the flows; parameters: how many numbers there are to train.
    stages: each use of a layer, in the order of the forward pass. passing: what passes by each, hand-derived in
    float64; bounds: the most by which the cotangent may grow from the stage after it, None where that is not known.
    flows: the same on each backend. findings: what is wrong. environment: versions, devices, seed and settings.
    """

    name: str
    dtype: str
    parameters: int
    stages: tuple[Stage, ...]
    passing: tuple[Passing, ...]
    bounds: tuple[float | None, ...]
    flows: Mapping[str, Flow]
    findings: tuple[Finding, ...]
    environment: Mapping[str, Any] = field(repr=False)

    def __bool__(self) -> bool:
        return not self.findings and not any(flow.is_other for flow in self.flows.values())

    @cached_property
    def attenuation(self) -> tuple[float | None, ...]:
        """The cotangent at each stage over that at the next; None for the last, and beside zeros."""
        sizes = [one.cotangent for one in self.passing]
        ratios = [a / b if b else None for a, b in pairwise(sizes)]
        return (*ratios, None)
