"""The rule table is the vocabulary, and every fused rule agrees with its definition in elementary ops."""

from __future__ import annotations

import numpy as np
import pytest

from gradwitness.networks.single_ops import op_problems
from gradwitness.ops import OPS
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import backend
from gradwitness_numpy.rules import RULES

FUSED = {p.name: p for p in op_problems(seed=1) if OPS[p.name.split(".")[0]].definition is not None}


def value_and_gradient(problem: Problem, candidate: Candidate) -> tuple[float, dict[str, np.ndarray]]:
    prepared = backend("numpy").prepare(candidate, problem, dtype="float64", device="cpu")
    value, gradient = prepared.value_and_gradient(problem.primals)
    return value, {path: g for path, g in gradient.items() if g is not None}


def test_the_table_is_the_vocabulary() -> None:
    assert list(RULES) == list(dict.fromkeys(RULES))
    assert set(RULES) == set(OPS)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_rule_agrees_with_its_definition(name: str) -> None:
    problem = FUSED[name]
    value, gradient = value_and_gradient(problem, Candidate("numpy"))
    expected_value, expected = value_and_gradient(problem, Candidate("numpy", problem.graph.decomposed()))
    assert value == pytest.approx(expected_value, rel=1e-12)
    for path in problem.differentiated:
        distance = np.linalg.norm(gradient[path] - expected[path])
        assert distance <= 1e-12 * np.linalg.norm(expected[path]), path


def test_every_fused_op_is_compared() -> None:
    assert {name.split(".")[0] for name in FUSED} == {op.name for op in OPS.values() if op.definition is not None}
    assert len(FUSED) > 40
