"""What to say beside a failure, so that its reader knows what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gradwitness import tree
from gradwitness.dtypes import find_dtype
from gradwitness.problem import Problem
from gradwitness.run.trial import Failure
from gradwitness.verdict import Verdict

__all__ = ["with_hints"]

COARSE = 2.0**-12  # units of roundoff: dtypes of 16 bits
LOOKED_UP = ("KeyError", "IndexError", "TypeError", "AttributeError: 'list'")


def with_hints(failure: Failure, problem: Problem, runs_in: Callable[[], str]) -> Failure:
    """The same, with what may have been forgotten or misspelt. runs_in: a dtype that was not asked for and in which the
    candidate runs; empty where there is none."""
    hint = _about_names(failure, problem) or _about_dtypes(failure, runs_in)
    return replace(failure, message=f"{failure.message}; {hint}") if hint else failure


def _about_names(failure: Failure, problem: Problem) -> str:
    if not failure.message.startswith(LOOKED_UP):
        return ""
    if lists := _lists_of_numbers(problem.params) + _lists_of_numbers(problem.batch):
        return f"{', '.join(lists)}: a list holds leaves, each an array: give np.array([...]) for an array of numbers"
    missing = "" if problem.leaves_of_batch else "no batch was given: verify(loss, params, batch)"
    if not failure.message.startswith("KeyError"):
        return missing
    return "; ".join(filter(None, (tree.listed(problem.params, problem.batch), missing)))


def _lists_of_numbers(structure: Any, path: str = "") -> list[str]:
    """The paths of lists and tuples that hold nothing but numbers, or lists of them."""
    if isinstance(structure, Mapping):
        return [
            found for key, value in structure.items() for found in _lists_of_numbers(value, f"{path}.{key}".lstrip("."))
        ]
    return [path or "it"] if _is_of_numbers(structure) else []


def _is_of_numbers(structure: Any) -> bool:
    is_list = isinstance(structure, list | tuple) and bool(structure)
    return is_list and all(isinstance(x, int | float) or _is_of_numbers(x) for x in structure)


def _about_dtypes(failure: Failure, runs_in: Callable[[], str]) -> str:
    if failure.verdict is not Verdict.ERROR or not (dtype := runs_in()):
        return ""
    said = f'it runs in {dtype}: give dtypes="{dtype}"'
    if find_dtype(dtype).unit_roundoff <= COARSE:
        return said
    return f"{said}, and referee= with the label of a candidate whose loss is the same in plain ops"
