"""Networks in several processes: one that ends costs the others nothing, and is an error."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Case
from gradwitness.settings import Settings
from gradwitness.side_by_side import ENDED, THREADS, verify_side_by_side


@dataclass(frozen=True, eq=False)
class Ending(Problem):
    """Ends the process that it is sent to."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)


def case(problem: Problem, *backends: str) -> Case:
    return Case(problem, {name: Candidate(name) for name in backends}, Settings(dtypes=("float64",)))


@pytest.mark.slow
def test_a_process_that_ends_is_an_error_of_what_was_not_done() -> None:
    article = network("article")
    ending = Ending("ending", article.loss, article.params, article.batch)
    cases = [case(article, "numpy"), case(ending, "numpy", "torch")]
    found = dict(verify_side_by_side(cases, 1))
    assert found[0]
    assert [(row.network, row.candidate, row.message) for row in found[1].rows] == [
        ("ending", "numpy", ENDED),
        ("ending", "torch", ENDED),
    ]


@pytest.mark.slow
def test_a_script_can_be_made_of_what_another_process_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    ((number, report),) = verify_side_by_side([case(network("article"), "numpy")], 1)
    assert number == 0
    assert report.exporter is not None
    assert [case.problem.name for case in report.cases] == ["article"]
    assert THREADS not in os.environ
