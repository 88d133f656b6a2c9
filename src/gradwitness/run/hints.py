"""What to say beside a failure, so that its reader knows what to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradwitness import tree
from gradwitness.dtypes import find_dtype
from gradwitness.problem import Problem
from gradwitness.run.trial import Failure
from gradwitness.verdict import Verdict

__all__ = ["with_hints"]

COARSE = 2.0**-12  # units of roundoff: dtypes of 16 bits
LOOKED_UP = ("KeyError", "IndexError", "TypeError")


def with_hints(failure: Failure, problem: Problem, runs_in: Callable[[], str]) -> Failure:
    """The same, with what may have been forgotten or misspelt. runs_in: a dtype that was not asked for and in which the
    candidate runs; empty where there is none."""
    hint = _about_names(failure, problem) or _about_dtypes(failure, runs_in)
    return replace(failure, message=f"{failure.message}; {hint}") if hint else failure


def _about_names(failure: Failure, problem: Problem) -> str:
    if not failure.message.startswith(LOOKED_UP):
        return ""
    if not problem.leaves_of_batch:
        return "no batch was given: verify(loss, params, batch)"
    return tree.listed(problem.params, problem.batch) if failure.message.startswith("KeyError") else ""


def _about_dtypes(failure: Failure, runs_in: Callable[[], str]) -> str:
    if failure.verdict is not Verdict.ERROR or not (dtype := runs_in()):
        return ""
    said = f'it runs in {dtype}: give dtypes="{dtype}"'
    if find_dtype(dtype).unit_roundoff <= COARSE:
        return said
    return f"{said}, and referee= with the label of a candidate whose loss is the same in plain ops"
