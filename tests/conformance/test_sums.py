"""How sums round: what each backend declares as its `sums`, held against exact sums.

Each case is a gradient that is one sum of many terms per element, computed by the backend and, from the same rounded
operands, in extended precision. Its error, over u sqrt(sum^2 + sum of squares), may reach the c(k) declared for that op
and dtype, and four times that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gradwitness import ops, registry
from gradwitness.dtypes import find_dtype
from gradwitness.problem import Candidate, Problem

TERMS, CHANNELS = 4096, 6
WITHIN = 4.0  # of the threshold's 12: room for what else rounds
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


def error(backend: str, dtype: str, case: Case) -> float:
    """rms error of the sums, over u times the root of their sum of squares."""
    rng = np.random.default_rng(2)
    params = {"b": rng.standard_normal(CHANNELS)}
    batch = {"g": rng.standard_normal(case.g)}
    if case.op == "conv2d":
        params["w"] = rng.standard_normal((CHANNELS, 1, 3, 3))
        batch["x"] = rng.standard_normal((64, 1, 8, 8))
    problem = Problem("sums", case.loss, params, batch).rounded(dtype)
    prepared = registry.backend(backend).prepare(Candidate(backend), problem, dtype=dtype, device="cpu")
    found = prepared.value_and_gradient(problem.primals)[1]["b"]
    assert found is not None
    terms = np.asarray(problem.leaves["g"], np.longdouble)
    terms = np.moveaxis(terms, 1, 0).reshape(CHANNELS, TERMS)
    exact = terms.sum(axis=1)
    scale = find_dtype(dtype).unit_roundoff * np.sqrt((terms**2).sum(axis=1) + exact**2)
    return float(np.sqrt(np.mean(((found - exact) / scale) ** 2)))


def allowed(backend: str, dtype: str, op: str, terms: int = TERMS) -> float:
    declared = registry.backend(backend).capabilities.sums.get((op, dtype))
    return WITHIN * float(declared.growth(terms) if declared else 1.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("backend", "dtype"), [(n, d) for n in DIRECT for d in registry.backend(n).capabilities.dtypes]
)
def test_what_is_declared_covers_what_is_measured(backend: str, dtype: str, name: str) -> None:
    assert error(backend, dtype, CASES[name]) <= allowed(backend, dtype, CASES[name].op)


def long_error(backend: str, dtype: str, op: str, terms: int, mean: float) -> float:
    """The same of the gradient of a bias ("sum") or a weight ("matmul") of a linear layer, from 7 to 20."""
    rng = np.random.default_rng(3)
    params = {"w": rng.standard_normal((20, 7)), "b": rng.standard_normal(20)}
    batch = {"x": mean + rng.standard_normal((terms, 7)), "g": mean + rng.standard_normal((terms, 20))}

    def loss(p: Any, b: Any) -> Any:
        return (ops.linear(b["x"], p["w"], p["b"]) * b["g"]).sum()

    problem = Problem("long", loss, params, batch).rounded(dtype)
    prepared = registry.backend(backend).prepare(Candidate(backend), problem, dtype=dtype, device="cpu")
    found = prepared.value_and_gradient(problem.primals)[1]["w" if op == "matmul" else "b"]
    assert found is not None
    x, g = (np.asarray(problem.leaves[name], np.longdouble) for name in ("x", "g"))
    x = x if op == "matmul" else np.ones((terms, 1), np.longdouble)
    exact, squares = np.squeeze(g.T @ x), np.squeeze((g * g).T @ (x * x))
    error = (found - exact) / (find_dtype(dtype).unit_roundoff * np.sqrt(exact**2 + squares))
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("terms", [64, 1024, 16_384, 262_144])
@pytest.mark.parametrize("op", ["sum", "matmul"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", DIRECT)
def test_long_sums_round_as_declared(backend: str, dtype: str, op: str, terms: int, mean: float) -> None:
    """Terms that cancel, and terms that do not."""
    assert long_error(backend, dtype, op, terms, mean) <= allowed(backend, dtype, op, terms)


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
        assert abs(found[path] - summed.sum()) / scale <= allowed(backend, dtype, "sum", terms), path


@pytest.mark.parametrize(("backend", "op"), [("numpy", "sum"), ("torch", "matmul")])
def test_without_its_declaration_a_long_sum_would_be_found(backend: str, op: str) -> None:
    assert long_error(backend, "float32", op, 262_144, 0.0) > 12


@pytest.mark.parametrize(
    ("backend", "dtype", "name"),
    [("jax", "bfloat16", "channels"), ("torch", "float32", "convolution")],
)
def test_without_its_declaration_it_would_be_found(backend: str, dtype: str, name: str) -> None:
    assert error(backend, dtype, CASES[name]) > WITHIN
