"""What is always caught on the zoo, at its own sizes, wherever a gradient exceeds its detection limit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gradwitness.arithmetic import Arithmetic
from gradwitness.evidence.reach import node_reach
from gradwitness.networks import NETWORKS, network
from gradwitness.problem import Candidate
from gradwitness.report import Address
from gradwitness.run.referee import graph_referee
from gradwitness.run.trial import Trial
from gradwitness.run.witness import OfGraph
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verdict.checks import judge
from gradwitness.verdict.leaf import LeafEvidence

EVERYWHERE = {"float64": 1e-11, "float32": 1e-4}  # an error of every coordinate
SIZEABLE = 1e-6  # of the tensor's largest element
FINE = 1e-2  # of an element: its detection limit


@cache
def evidence(name: str, dtype: str) -> dict[str, LeafEvidence]:
    """Of each gradient that exceeds its limit; others are zero by structure, or said to be inconclusive."""
    known = graph_referee(network(name), dtype, Settings(dtypes=(dtype,)))
    address = Address(name, "numpy", "numpy", "cpu", dtype)
    tried = Trial(None, (), {}, {})  # type: ignore[arg-type]  # nothing that ran is asked for
    witness = OfGraph(
        address, Candidate("numpy"), known.problem, tried, known=known, arithmetic=Arithmetic(), is_referee=False
    )
    found = {path: witness.evidence_on(path) for path in known.gradients}
    return {path: e for path, e in found.items() if np.linalg.norm(e.truth.high) > limit_by_norm(e)}


def limit_by_norm(e: LeafEvidence) -> float:
    return node_reach(e.floor).norm * e.floor.norm


def limits_by_element(e: LeafEvidence) -> np.ndarray:
    limits: np.ndarray = node_reach(e.floor).element * e.floor.elements
    return limits


@pytest.mark.parametrize("dtype", EVERYWHERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_error_of_every_coordinate_is_caught(name: str, dtype: str) -> None:
    for path, e in evidence(name, dtype).items():
        assert judge(e.truth.high, e).verdict is Verdict.AGREE, path
        assert judge(e.truth.high * (1 + EVERYWHERE[dtype]), e).verdict is Verdict.DISAGREE, path


@pytest.mark.parametrize("dtype", EVERYWHERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_one_coordinate_off_by_twice_its_limit_is_caught(name: str, dtype: str) -> None:
    for path, e in evidence(name, dtype).items():
        for index, limit in enumerate(limits_by_element(e).reshape(-1)):
            wrong = e.truth.high.copy()
            wrong.flat[index] += 2 * limit or np.finfo(float).tiny  # what nothing rounds has a limit of 0
            assert judge(wrong, e).verdict is Verdict.DISAGREE, (path, index)


@pytest.mark.parametrize("name", NETWORKS)
def test_zeros_nan_and_a_tiny_gradient_off_by_a_factor(name: str) -> None:
    for path, e in evidence(name, "float32").items():
        g = e.truth.high
        assert judge(np.zeros(g.shape), e).verdict is Verdict.DISAGREE, path
        assert judge(np.where(g == g.flat[0], np.nan, g), e).verdict is Verdict.NONFINITE, path
        assert judge(2 * g, e).verdict is Verdict.DISAGREE, path


def test_nearly_every_sizeable_coordinate_has_a_limit_below_a_hundredth_of_it() -> None:
    fine = total = 0
    for name in NETWORKS:
        for e in evidence(name, "float32").values():
            size = np.abs(e.truth.high)
            sizeable = size > SIZEABLE * np.max(size)
            fine += int(np.count_nonzero(limits_by_element(e)[sizeable] < FINE * size[sizeable]))
            total += int(np.count_nonzero(sizeable))
    assert total > 11_000
    assert fine >= 0.99 * total
