"""What verifying one case gives: its rows, and the record of where and at which point they were found."""

from __future__ import annotations

from gradwitness import registry
from gradwitness.errors import UnsupportedError
from gradwitness.evidence.exercise import Exercise, exercise
from gradwitness.problem import Problem
from gradwitness.report import Case, Report
from gradwitness.run.derived import derived
from gradwitness.run.environment import environment
from gradwitness.run.problems import rows_of_failure, verify_problem
from gradwitness.run.progress import Progress
from gradwitness.run.trial import Failure
from gradwitness.verdict import Verdict

__all__ = ["verify_case"]


def verify_case(case: Case, *, progress: Progress = lambda text: None) -> Report:
    """Every candidate of a problem, in every dtype and on every device.

    Where another derivative than the gradient was asked for, and the loss has none here, all are `unsupported`. Raises
    GradwitnessError where its own gradient has to be seen to first.
    """
    try:
        case = derived(case, progress=progress)
    except UnsupportedError as error:
        failure = Failure(Verdict.UNSUPPORTED, str(error))
        rows = rows_of_failure(case.problem, case.candidates, case.settings, failure)
    else:
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
