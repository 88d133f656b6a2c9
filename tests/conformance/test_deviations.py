"""Spreads about a mean that is far larger, and sums far from zero: formulas that round them differently all agree.

The gradient of `var` by an element is proportional to its deviation from the mean. jax takes the mean of these
off again, torch and the rule of numpy know that it is 0: in float32 they are 1e-5 apart, and all of them right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwitness import ops
from gradwitness.problem import Problem
from gradwitness.report import Report
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems
from gradwitness_numpy.rules import RULES

DIRECT = ("numpy", "torch", "jax")


def far_from_zero(op: str, seed: int, *, mean: float, spread: float) -> Problem:
    rng = np.random.default_rng(seed)
    x, c = mean + spread * rng.standard_normal((4, 5)), rng.standard_normal(4)

    def loss(params: Any, batch: Any) -> Any:
        return (getattr(ops, op)(params["x"], axis=1) * batch["c"]).sum()

    return Problem(op, loss, {"x": x}, {"c": c})


def verified(op: str, dtype: str, *, mean: float, spread: float) -> Report:
    problems = [far_from_zero(op, seed, mean=mean, spread=spread) for seed in range(3)]
    return verify_problems([(problem, DIRECT) for problem in problems], Settings(dtypes=(dtype,)))


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 0.01), (100.0, 1.0), (3000.0, 1.0)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", ["var", "std"])
def test_all_agree_on_small_deviations(op: str, dtype: str, mean: float, spread: float) -> None:
    report = verified(op, dtype, mean=mean, spread=spread)
    assert report.ok, repr(report)


@pytest.mark.parametrize("mean", [10.0, 100.0, -3000.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_agree_on_a_logsumexp_far_from_zero(dtype: str, mean: float) -> None:
    """torch's weights are exp(x - y), whose y is rounded where jax and numpy divide by a sum."""
    report = verified("logsumexp", dtype, mean=mean, spread=1.0)
    assert not [row for row in report.rows if row.verdict not in (Verdict.AGREE, Verdict.INCONCLUSIVE)], repr(report)
    assert dtype == "float64" or report.ok, repr(report)


@pytest.mark.parametrize("op", ["var", "std", "logsumexp"])
def test_a_wrong_factor_is_seen_beside_a_large_mean(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]
    monkeypatch.setitem(RULES, op, replace(rule, vjp=lambda g, step: [1.001 * c for c in rule.vjp(g, step)]))
    report = verified(op, "float64", mean=100.0, spread=1.0)
    assert {row.backend for row in report.rows if row.verdict is Verdict.DISAGREE} == {"numpy"}
