"""Every op: float64 against finite differences, one by one; 16-bit dtypes within their floor, in bundles.

The problems are those of `gradwitness verify --ops`: each op at every one of its samples (three shapes
at least, broadcasting included), with random cotangents. `test_backends` has float64 and float32 on
every backend, in bundles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gradwitness import registry
from gradwitness.networks.single_ops import op_bundles, op_problems
from gradwitness.ops import OPS
from gradwitness.problem import Problem
from gradwitness.report import Report
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems

PROBLEMS = {problem.name: problem for problem in op_problems()}
BUNDLES = {problem.name: problem for problem in op_bundles()}
# jax compiles each graph in a tenth of a second, which adds up over a hundred problems
ONE_BY_ONE = [n for n in registry.backend_names() if not registry.backend(n).capabilities.compiles and n != "jax"]
COMPILING = [n for n in registry.backend_names() if registry.backend(n).capabilities.compiles]
NARROW = ("bfloat16", "float16")


def run(problem: Problem, backends: Sequence[str], dtype: str) -> Report:
    return verify_problems([(problem, backends)], Settings(dtypes=(dtype,)))


def expect_agreement(report: Report, *, allow: tuple[str, ...] = ()) -> None:
    report = replace(report, allow=allow)
    assert report.ok, repr(report)


def expect_finite_differences(report: Report) -> None:
    expect_agreement(report)
    for row in report.rows:
        assert row.fd_error is not None
        assert row.fd_bound is not None
        assert row.fd_error <= row.fd_bound
        assert row.textbook is not None
        assert row.textbook < 1e-5


@pytest.mark.parametrize("backend", ONE_BY_ONE)
@pytest.mark.parametrize("name", PROBLEMS)
def test_float64_against_finite_differences(name: str, backend: str) -> None:
    expect_finite_differences(run(PROBLEMS[name], [backend], "float64"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", BUNDLES)
def test_narrow_dtypes_within_their_floor(name: str, dtype: str) -> None:
    able = [n for n in registry.backend_names() if dtype in registry.backend(n).capabilities.dtypes]
    expect_agreement(run(BUNDLES[name], [n for n in able if n not in COMPILING], dtype), allow=said_in(dtype))


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", BUNDLES)
def test_compiled_bundles_in_16_bits(name: str, dtype: str) -> None:
    expect_agreement(run(BUNDLES[name], COMPILING, dtype), allow=said_in(dtype))


def said_in(dtype: str) -> tuple[str, ...]:
    """16-bit formats may leave an op's gradient below what rounding hides; that is said, and is no alarm."""
    return (Verdict.INCONCLUSIVE,) if dtype.endswith("16") else ()


def test_every_op_has_three_samples_at_least() -> None:
    assert not [op.name for op in OPS.values() if len(op.samples) < 3]
