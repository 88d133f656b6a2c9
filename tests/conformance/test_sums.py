"""How sums round: what each backend declares as its `sums`, held against exact sums.

Each case is a gradient that is one sum of many terms per element, computed by the backend and, from the same rounded
operands, in extended precision. Its error, over u sqrt(sum^2 + sum of squares), may reach the c(k) declared for that op
and dtype, and four times that.

How a library sums depends on the CPU that it finds. So nothing here expects a library to sum badly: that is emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from gradwitness import ops, registry
from gradwitness.arithmetic import Operands, Sums
from gradwitness.dtypes import find_dtype, round_to
from gradwitness.problem import Candidate, Problem
from gradwitness.run.problems import verify_problem
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from tests.evidence.reduced import Accumulating

Array = np.ndarray[Any, Any]
TERMS, CHANNELS = 4096, 6
THRESHOLD = 12.0  # floors from which on a gradient disagrees
WITHIN = 4.0  # of these: room for what else rounds
DIRECT = [n for n in registry.backend_names() if not registry.backend(n).capabilities.compiles]
IMAGES = (64, CHANNELS, 8, 8)


@dataclass(frozen=True)
class Case:
    """The gradient by params["b"], and the terms of its sums: shape (CHANNELS, terms)."""

    op: str
    loss: Callable[[Any, Any], Any]
    g: tuple[int, ...]


CASES = {
    "rows": Case("sum", lambda p, b: (p["b"] * b["g"]).sum(), (TERMS, CHANNELS)),
    "channels": Case("sum", lambda p, b: (p["b"].reshape(1, -1, 1, 1) * b["g"]).sum(), IMAGES),
    "convolution": Case(
        "conv2d",
        lambda p, b: (ops.conv2d(b["x"], p["w"], p["b"], padding=1) * b["g"]).sum(),
        IMAGES,
    ),
}


def gradient(backend: str, dtype: str, problem: Problem, path: str) -> Array:
    prepared = registry.backend(backend).prepare(Candidate(backend), problem, dtype=dtype, device="cpu")
    found = prepared.value_and_gradient(problem.primals)[1][path]
    assert found is not None
    return found


def error(found: Array, exact: Array, squares: Array, dtype: str) -> float:
    """rms error of sums, in u times the root of the sum's square and of the sum of the terms' squares."""
    scale = find_dtype(dtype).unit_roundoff * np.sqrt(exact**2 + squares)
    return float(np.sqrt(np.mean(((found - exact) / scale) ** 2)))


def short_error(backend: str, dtype: str, case: Case) -> float:
    rng = np.random.default_rng(2)
    params = {"b": rng.standard_normal(CHANNELS)}
    batch = {"g": rng.standard_normal(case.g)}
    if case.op == "conv2d":
        params["w"] = rng.standard_normal((CHANNELS, 1, 3, 3))
        batch["x"] = rng.standard_normal((64, 1, 8, 8))
    problem = Problem("sums", case.loss, params, batch).rounded(dtype)
    terms = np.asarray(problem.leaves["g"], np.longdouble)
    terms = np.moveaxis(terms, 1, 0).reshape(CHANNELS, TERMS)
    return error(gradient(backend, dtype, problem, "b"), terms.sum(axis=1), (terms**2).sum(axis=1), dtype)


def long_problem(terms: int, mean: float) -> Problem:
    """The gradient of a linear layer's bias, and of its weight from 7 to 20, over so many examples."""
    rng = np.random.default_rng(3)
    params = {"w": rng.standard_normal((20, 7)), "b": rng.standard_normal(20)}
    batch = {"x": mean + rng.standard_normal((terms, 7)), "g": mean + rng.standard_normal((terms, 20))}
    return Problem("long", lambda p, b: (ops.linear(b["x"], p["w"], p["b"]) * b["g"]).sum(), params, batch)


def long_error(backend: str, dtype: str, op: str, terms: int, mean: float) -> float:
    problem = long_problem(terms, mean).rounded(dtype)
    found = gradient(backend, dtype, problem, "w" if op == "matmul" else "b")
    return error(found, *exact_sums(op, terms, mean, dtype), dtype)


@cache
def exact_sums(op: str, terms: int, mean: float, dtype: str) -> tuple[Array, Array]:
    """In long double, which takes longest: the sums of that problem, and those of the squares."""
    problem = long_problem(terms, mean).rounded(dtype)
    x, g = (np.asarray(problem.leaves[name], np.longdouble) for name in ("x", "g"))
    x = x if op == "matmul" else np.ones((terms, 1), np.longdouble)
    return np.squeeze(g.T @ x), np.squeeze((g * g).T @ (x * x))


def growth(sums: Sums | None, terms: int) -> float:
    return float(sums.growth(terms)) if sums else 1.0


def expect_within(measured: float, sums: Sums | None, terms: int, what: str) -> None:
    """What a library leaves in sums of so many terms, against what is declared of it."""
    limit = WITHIN * growth(sums, terms)
    assert measured <= limit, f"{what}: sums of {terms} terms are off by {measured:.3g}, {limit:.3g} with {sums}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("backend", "dtype"), [(n, d) for n in DIRECT for d in registry.backend(n).capabilities.dtypes]
)
def test_what_is_declared_covers_what_is_measured(backend: str, dtype: str, name: str) -> None:
    case = CASES[name]
    declared = registry.backend(backend).capabilities.sums.get((case.op, dtype))
    expect_within(short_error(backend, dtype, case), declared, TERMS, f"{backend}, {dtype}, {case.op}")


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("terms", [64, 1024, 16_384, 262_144])
@pytest.mark.parametrize("op", ["sum", "matmul"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", DIRECT)
def test_long_sums_round_as_declared(backend: str, dtype: str, op: str, terms: int, mean: float) -> None:
    """Terms that cancel, and terms that do not."""
    declared = registry.backend(backend).capabilities.sums.get((op, dtype))
    expect_within(long_error(backend, dtype, op, terms, mean), declared, terms, f"{backend}, {dtype}, {op}")


@pytest.mark.parametrize("mean", [1.0, 1000.0])
@pytest.mark.parametrize("terms", [1000, 300_000, 1_000_000])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", DIRECT)
def test_sums_of_everything_round_as_declared(backend: str, dtype: str, terms: int, mean: float) -> None:
    """Of one sign, beside a large mean, to one number: the gradient by a factor of all. Its products have the signs of
    what was subtracted, and cancel."""
    rng = np.random.default_rng(4)
    batch = {"g": mean + rng.standard_normal(terms), "h": rng.standard_normal(terms)}
    params = {"b": np.array(0.5), "c": np.array(0.5)}
    problem = Problem("everything", lambda p, b: (p["b"] * b["g"] + p["c"] * b["h"] * b["g"]).sum(), params, batch)
    problem = problem.rounded(dtype)
    prepared = registry.backend(backend).prepare(Candidate(backend), problem, dtype=dtype, device="cpu")
    found = prepared.value_and_gradient(problem.primals)[1]
    g, h = (np.asarray(problem.leaves[name], np.longdouble) for name in ("g", "h"))
    for path, summed in (("b", g), ("c", g * h)):
        scale = find_dtype(dtype).unit_roundoff * np.sqrt((summed**2).sum() + summed.sum() ** 2)
        measured = abs(found[path] - summed.sum()) / scale
        declared = registry.backend(backend).capabilities.sums.get(("sum", dtype))
        expect_within(float(measured), declared, terms, f"{backend}, {dtype}, {path}")


def emulated_error(dtype: str, terms: int, accumulator: Operands) -> float:
    """The error of a library that adds one term after another, and keeps so many bits of each partial sum."""
    x = round_to(np.random.default_rng(4).standard_normal((terms, 20)), dtype)
    total = np.zeros(20)
    for term in x:
        total = accumulator.rounded(total + term)
    exact = x.astype(np.longdouble)
    return error(total, exact.sum(axis=0), (exact**2).sum(axis=0), dtype)


FEW = 256  # terms; of more, a sum of so few bits stops growing, and is off by no more than itself
ONE_AFTER_ANOTHER = {"float32": Operands(23), "bfloat16": Operands(7)}
DECLARED = [
    (name, op, dtype)
    for name in DIRECT
    for op, dtype in registry.backend(name).capabilities.sums
    if dtype in ONE_AFTER_ANOTHER
]


@pytest.mark.parametrize("dtype", ONE_AFTER_ANOTHER)
def test_sums_one_after_another_would_be_found_if_they_were_not_declared(dtype: str) -> None:
    for terms, least in ((TERMS, WITHIN), (4 * TERMS, THRESHOLD)):
        measured = emulated_error(dtype, terms, ONE_AFTER_ANOTHER[dtype])
        assert measured > least
        expect_within(measured, Sums(1 / 2), terms, "one after another")
        with pytest.raises(AssertionError, match=rf"emulated: sums of {terms} terms are off by \d.*, 4 with None"):
            expect_within(measured, None, terms, "emulated")


@pytest.mark.parametrize(("backend", "op", "dtype"), DECLARED)
def test_a_library_that_sums_worse_than_declared_is_found(backend: str, op: str, dtype: str) -> None:
    """Partial sums of 2 bits fewer, the rest cut off, so that all errors point to zero."""
    declared = registry.backend(backend).capabilities.sums[op, dtype]
    measured = emulated_error(dtype, FEW, Operands(ONE_AFTER_ANOTHER[dtype].bits - 2, nearest=False))
    with pytest.raises(AssertionError, match=rf"{backend}: sums of {FEW} terms are off by \d"):
        expect_within(measured, declared, FEW, backend)


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_verdict_depends_on_what_is_declared(is_declared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's matrix products one term after another in float32, as some libraries add where the result is narrow."""
    backend = registry.backend("torch")
    sums = {("matmul", "float32"): Sums(1 / 2)} if is_declared else {}
    monkeypatch.setattr(backend, "capabilities", replace(backend.capabilities, sums=sums))
    settings = Settings(dtypes=("float32",), reference="differences")
    with Accumulating():
        rows = verify_problem(long_problem(4 * TERMS, 0.0), {"torch": Candidate("torch")}, settings)
    found = {row.parameter: row.verdict for row in rows}
    assert found == {"w": Verdict.AGREE if is_declared else Verdict.DISAGREE, "b": Verdict.AGREE}
