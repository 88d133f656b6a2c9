"""A candidate made ready to run in this process."""

from __future__ import annotations

from gradwitness import registry
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared, expect_runnable, expect_supported

__all__ = ["prepare_here"]


def prepare_here(candidate: Candidate, problem: Problem, dtype: str, device: str) -> Prepared:
    """The candidate, ready to run in this process."""
    backend = registry.installed(candidate.backend)
    expect_supported(backend, dtype, device)
    expect_runnable(backend, candidate)
    return backend.prepare(candidate, problem, dtype=dtype, device=device)
