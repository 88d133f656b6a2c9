"""What was found, of whatever kind: where, what was measured, what to try, and from which source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Finding", "Rule", "found", "lines"]

SHOWN = 8  # places of a kind of finding


@dataclass(frozen=True)
class Rule:
    """A kind of finding. remedy: what to try; source: where that, and the threshold, are from; threshold: beyond which
    it is one, of a kind that has one."""

    remedy: str
    source: str = ""
    threshold: float = math.nan


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    kind: what it is called. where: the layer, parameter or step. message: what was measured. remedy: what to try.
    source: where that is from, empty where it needs none.
    """

    kind: str
    where: str
    message: str
    remedy: str
    source: str = ""

    def __str__(self) -> str:
        place = f" {self.where}" if self.where else ""
        return f"{self.kind}{place}: {self.message}; {self.advice}"

    @property
    def advice(self) -> str:
        """What to try, and where that is from."""
        return f"{self.remedy} ({self.source})" if self.source else self.remedy


def found(rules: Mapping[str, Rule], kind: str, where: str, message: str, remedy: str = "") -> Finding:
    """A finding of that kind. remedy: what to try, if it is not what the rule says."""
    return Finding(kind, where, message, remedy or rules[kind].remedy, rules[kind].source)


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Each kind with what to try, and below it where it was found; of many places the first."""
    if not findings:
        yield "nothing found"
    for (kind, advice), group in groupby(findings, lambda one: (one.kind, one.advice)):
        places = list(group)
        yield f"! {kind}: {advice}"
        yield from (f"    {one.where + ': ' if one.where else ''}{one.message}" for one in places[:SHOWN])
        if len(places) > SHOWN:
            yield f"    and {len(places) - SHOWN} more"
