"""A candidate made ready to run: in this process, or in one of its own."""

from __future__ import annotations

from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.run.here import prepare_here
from gradwitness.settings import Settings

__all__ = ["prepare"]


def prepare(candidate: Candidate, problem: Problem, dtype: str, device: str, settings: Settings) -> Prepared:
    """The candidate, ready to run: here, or in a subprocess if settings.timeout says how long it may take.

    Raises UnsupportedError for what its backend cannot do or does not find.
    """
    if settings.timeout is None:
        return prepare_here(candidate, problem, dtype, device)
    from gradwitness.run.isolated import isolate  # here, so that importing gradwitness is quick

    return isolate(candidate, problem, dtype, device, settings)
