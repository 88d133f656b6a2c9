"""How far a run has come is told of each step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gradwitness.networks import network
from gradwitness.problem import Candidate
from gradwitness.run import progress
from gradwitness.run.problems import verify_problem
from gradwitness.run.progress import Counted
from gradwitness.settings import Settings


def test_steps_are_counted_and_from_the_second_on_the_rest_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[str]()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    counted = Counted(told.append, [1, 2, 1, 3])
    for step in "abcd":
        counted(step)
        now[0] += 10.0
    assert told == [
        "a (1 of 4)",
        "b (2 of 4, about 60 s left)",
        "c (3 of 4, about 27 s left)",
        "d (4 of 4, about 22 s left)",
    ]


@pytest.mark.parametrize("dtypes", [("float64",), ("float64", "float32")])
def test_a_run_tells_as_many_steps_as_it_has(dtypes: tuple[str, ...]) -> None:
    told = list[str]()
    candidates = {"numpy": Candidate("numpy"), "torch": Candidate("torch")}
    verify_problem(network("article"), candidates, Settings(dtypes=dtypes), progress=told.append)
    steps = [text.split("(")[1].split(",")[0].rstrip(")") for text in told]
    assert steps == [f"{i + 1} of {len(told)}" for i in range(len(told))]
    assert len(told) == 2 * 2 * len(dtypes)
