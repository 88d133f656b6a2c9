"""Every op on every backend: float64 against finite differences, the other dtypes within their floor.

The problems are those of `gradwitness verify --ops`: each op at every one of its samples (three shapes
at least, broadcasting included), with random cotangents. Backends that compile get them in bundles.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwitness import registry
from gradwitness.networks.single_ops import op_bundles, op_problems
from gradwitness.ops import OPS
from gradwitness.problem import Problem
from gradwitness.report import Report
from gradwitness.verdict import Verdict
from gradwitness.verify import Settings, verify_problems

PROBLEMS = {problem.name: problem for problem in op_problems()}
BUNDLES = {problem.name: problem for problem in op_bundles()}
COMPILING = [n for n in registry.backend_names() if registry.backend(n).capabilities.compiles]
NARROW = [(n, d) for n in registry.backend_names() for d in registry.backend(n).capabilities.dtypes if d != "float64"]


def run(problem: Problem, backend: str, dtype: str) -> Report:
    return verify_problems([(problem, [backend])], Settings(dtypes=(dtype,)))


def expect_agreement(report: Report, *, allow: tuple[str, ...] = ()) -> None:
    report = replace(report, allow=allow)
    assert report.ok, repr(report)


@pytest.mark.parametrize("backend", [n for n in registry.backend_names() if n not in COMPILING])
@pytest.mark.parametrize("name", PROBLEMS)
def test_float64_against_finite_differences(name: str, backend: str) -> None:
    report = run(PROBLEMS[name], backend, "float64")
    expect_agreement(report)
    for row in report.rows:
        assert row.fd_error is not None
        assert row.fd_bound is not None
        assert row.fd_error <= row.fd_bound
        assert row.textbook is not None
        assert row.textbook < 1e-5


@pytest.mark.parametrize(("backend", "dtype"), [pair for pair in NARROW if pair[0] not in COMPILING])
@pytest.mark.parametrize("name", BUNDLES)
def test_narrow_dtypes_within_their_floor(name: str, backend: str, dtype: str) -> None:
    # 16-bit formats may leave an op's gradient below what rounding hides; that is said, and is no alarm
    allow = (Verdict.INCONCLUSIVE,) if dtype.endswith("16") else ()
    expect_agreement(run(BUNDLES[name], backend, dtype), allow=allow)


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILING)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BUNDLES)
def test_compiled_bundles(name: str, dtype: str, backend: str) -> None:
    expect_agreement(run(BUNDLES[name], backend, dtype))


@pytest.mark.nightly
@pytest.mark.parametrize("backend", COMPILING)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", BUNDLES)
def test_compiled_bundles_in_16_bits(name: str, dtype: str, backend: str) -> None:
    expect_agreement(run(BUNDLES[name], backend, dtype), allow=(Verdict.INCONCLUSIVE,))


def test_every_op_has_three_samples_at_least() -> None:
    assert not [op.name for op in OPS.values() if len(op.samples) < 3]
