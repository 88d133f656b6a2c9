"""What a report is made of, for whoever runs a part of it, here, elsewhere or again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gradwitness.problem import Candidate, Problem
from gradwitness.settings import Settings

__all__ = ["Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """What is verified: a problem, its candidates by label, and how."""

    problem: Problem
    candidates: Mapping[str, Candidate]
    settings: Settings

    @property
    def named(self) -> str:
        """The problem and where it is verified, in words."""
        devices = [device for device in self.settings.devices if device != "cpu"]
        return " ".join([self.problem.name, *self.settings.dtypes, *devices])

    @property
    def backends(self) -> tuple[str, ...]:
        """Those of the candidates, each once."""
        return tuple(dict.fromkeys(candidate.backend for candidate in self.candidates.values()))

    @property
    def cells(self) -> tuple[Case, ...]:
        """The same in one dtype on one device each, in the order of the rows: they know nothing of each other."""
        return tuple(replace(self, settings=settings) for settings in self.settings.by_cell)
