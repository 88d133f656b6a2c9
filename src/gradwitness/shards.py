"""A run split among several machines: which of its cells are whose, and what each keeps on record of that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwitness.errors import GradwitnessError

__all__ = ["Part", "Shard", "shard_from"]

WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One of `of` shares of a run; `number` counts from 1. It is written "2/4"."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def cells(self, weights: Sequence[int]) -> list[int]:
        """Which cells are its own, in their order; every cell belongs to one shard, and all machines agree on which.

        The heaviest cell that is left goes to the shard that has least, the first of several: no shard gets more than
        4/3 of what the best split would give it (Graham, "Bounds on multiprocessing timing anomalies", 1969, theorem
        2). weights: how long each cell takes beside the others.

        Raises GradwitnessError where there are fewer cells than shards.
        """
        if len(weights) < self.of:
            cells = "there is only 1 cell" if len(weights) == 1 else f"there are only {len(weights)} cells"
            raise GradwitnessError(f"--shard {self}: {cells} to split: ask for at most {len(weights)} shards")
        loads = [0] * self.of
        found: list[int] = []
        for cell in sorted(range(len(weights)), key=lambda cell: (-weights[cell], cell)):
            least = loads.index(min(loads))
            loads[least] += weights[cell]
            if least == self.number - 1:
                found.append(cell)
        return sorted(found)


def shard_from(text: str) -> Shard:
    """What "2/4" says. Raises GradwitnessError for what is no share."""
    written = WRITTEN.fullmatch(text.strip())
    number, of = map(int, written.groups()) if written else (0, 0)
    if not 1 <= number <= of:
        raise GradwitnessError(f"expected i/n, the i-th of n shards, such as 1/4 to 4/4, got {text!r}")
    return Shard(number, of)


@dataclass(frozen=True)
class Part:
    """What a shard did of a run.

    asked: what the whole run was asked for, by option. cells: which of its cells were verified or timed here, each with
    the number of its records, in the order of the records.
    """

    shard: Shard
    asked: Mapping[str, Any]
    cells: tuple[tuple[int, int], ...]

    def document(self) -> dict[str, Any]:
        """As the JSON has it."""
        cells = [{"cell": cell, "records": records} for cell, records in self.cells]
        return {**vars(self.shard), "asked": self.asked, "cells": cells}
