"""What verifying one case gives: its rows, and the record of where and at which point they were found."""

from __future__ import annotations

from gradwitness import registry
from gradwitness.evidence.exercise import Exercise, exercise
from gradwitness.problem import Problem
from gradwitness.report import Case, Report
from gradwitness.run.along import along_direction
from gradwitness.run.environment import environment
from gradwitness.run.problems import verify_problem
from gradwitness.run.progress import Progress

__all__ = ["verify_case"]


def verify_case(case: Case, *, progress: Progress = lambda text: None) -> Report:
    """Every candidate of a problem, in every dtype and on every device.

    Raises GradwitnessError where another derivative than the gradient was asked for, and is not to be had.
    """
    if case.settings.derivative != "gradient":
        case = along_direction(case, progress=progress)
    rows = verify_problem(case.problem, case.candidates, case.settings, progress=progress)
    where = environment(case.backends, case.settings)
    return Report(tuple(rows), where, exercise=_exercise(case.problem), cases=(case,))


def _exercise(problem: Problem) -> dict[str, tuple[Exercise, ...]]:
    """By the problem's name, what its point exercises of its ops; of a black box nothing is known."""
    if problem.loss is None:
        return {}
    try:
        found = exercise(registry.interpreter(), problem)
    except Exception:  # noqa: BLE001  # what cannot run is an error in every row already
        return {}
    return {problem.name: found} if found else {}
