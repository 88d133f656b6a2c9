"""What a report was made of, for whoever wants to run a part of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradwitness.problem import Candidate, Problem
from gradwitness.settings import Settings

__all__ = ["Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """What was verified: a problem, its candidates by label, and how."""

    problem: Problem
    candidates: Mapping[str, Candidate]
    settings: Settings
