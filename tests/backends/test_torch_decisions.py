"""Rounding errors overturn no decision that the loss makes of what is equal, and none that float64 would not; whole
numbers have none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw
from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness_torch.rounding import Rounding
from tests.judge.cases import abs_sign, max_plus, scattered

DTYPES = ("float64", "float32", "bfloat16")
RUNS = 12


def tensor(*values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float64)


def runs(f: Callable[[], Any], dtype: str) -> tuple[Any, list[Any]]:
    """What f gives without errors, and with them."""
    rounding = Rounding(RoundingErrors.of(dtype, Arithmetic()), [0])
    with rounding.recording():
        exact = f()
    found = []
    for _ in range(RUNS):
        with rounding.everywhere():
            found.append(f())
    return exact, found


X = tensor(0.3, 1.7, -0.6, 1.7, 0.3, 1.7)
GRID = torch.tensor([[[0.3, 1.7, 1.7, 0.2], [0.1, 0.3, 1.1, 1.7]]]).double()


def twice(x: Any = X) -> tuple[Any, Any]:
    """The same numbers, computed twice."""
    return x.sin() * 1.1, x.sin() * 1.1


EQUAL: dict[str, Callable[[], Any]] = {
    "eq": lambda: torch.eq(*twice()),
    "ne": lambda: torch.ne(*twice()),
    "equal": lambda: torch.equal(*twice()),
    "isclose": lambda: torch.isclose(*twice(), rtol=0, atol=0),
    "lt": lambda: torch.lt(*twice()),
    "le": lambda: torch.le(*twice()),
    "gt": lambda: torch.gt(*twice()),
    "ge": lambda: torch.ge(*twice()),
    "eq of a number": lambda: (twice()[0] - twice()[1]) == 0,
    "nonzero": lambda: (twice()[0] - twice()[1]).nonzero(),
    "bool": lambda: (twice()[0] - twice()[1]).bool(),
    "count_nonzero": lambda: torch.count_nonzero(twice()[0] - twice()[1]),
    "argmax": lambda: twice()[0].argmax(),
    "argmin along": lambda: (-twice()[0]).reshape(2, 3).argmin(0),
    "max along": lambda: twice()[0].max(0).indices,
    "max_pool": lambda: F.max_pool2d((GRID * 1.1).sin(), 2, return_indices=True)[1],
    "adaptive_max_pool": lambda: F.adaptive_max_pool2d((GRID * 1.1).sin(), 1, return_indices=True)[1],
    "integers": lambda: (twice()[0] / twice()[1]).to(torch.int8),
    "copied to integers": lambda: torch.zeros(6, dtype=torch.int64).copy_(twice()[0] / twice()[1]),
    "floor": lambda: torch.floor(twice()[0] / twice()[1]),
    "trunc": lambda: torch.trunc(twice()[0] / twice()[1]),
    "sign": lambda: torch.sign(twice()[0] - twice()[1]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EQUAL)
def test_what_is_decided_by_equality_is_decided_alike(name: str, dtype: str) -> None:
    exact, found = runs(EQUAL[name], dtype)
    for outcome in found:
        assert outcome == exact if isinstance(exact, bool) else torch.equal(outcome, exact)


NEAR = tensor(1.3, 1.3 + 1e-12, 2.3 - 1e-12, 2.3)  # nearer to each other than amplified errors are large
SPREAD: dict[str, Callable[[], Any]] = {
    "lt": lambda: torch.lt(NEAR * 1.1, NEAR.flip(0) * 1.1 + (NEAR - NEAR.flip(0))),
    "sort": lambda: (NEAR * 1.1).sort(),
    "argsort": lambda: (NEAR * 1.1).argsort(descending=True),
    "topk": lambda: (NEAR * 1.1).topk(3),
    "kthvalue": lambda: (NEAR * 1.1).kthvalue(2),
    "median": lambda: (NEAR * 1.1).median(0),
    "cummax": lambda: (NEAR * 1.1).cummax(0),
    "max along": lambda: (NEAR * 1.1).reshape(2, 2).max(1, keepdim=True),
    "searchsorted": lambda: torch.searchsorted(NEAR * 1.1, NEAR.clone() * 1.1),
    "max_pool": lambda: F.max_pool2d((GRID * 1.1).sin(), 2, return_indices=True),
    "adaptive_max_pool": lambda: F.adaptive_max_pool2d((GRID * 1.1).sin(), 1, return_indices=True),
    "round": lambda: torch.round(NEAR / 1.3 + 0.5 - 1e-13),
}


@pytest.mark.parametrize("name", SPREAD)
def test_in_float64_every_decision_is_that_of_the_run_without_errors(name: str) -> None:
    """And the values that come with it are those of the perturbed numbers, in these places."""
    exact, found = runs(SPREAD[name], "float64")
    for outcome in found:
        if isinstance(exact, torch.Tensor):
            assert torch.equal(outcome, exact)
            continue
        assert torch.equal(outcome[1], exact[1])
        assert torch.allclose(outcome[0], exact[0], rtol=1e-8)
        assert not torch.equal(outcome[0], exact[0])


def test_in_less_a_decision_is_overturned_where_rounding_may() -> None:
    _, found = runs(lambda: (NEAR * 1.1).argmax(), "float32")
    assert {int(outcome) for outcome in found} == {2, 3}
    _, found = runs(lambda: torch.lt(NEAR[:1] * 1.1, NEAR[1:2] * 1.1), "float32")
    assert {bool(outcome) for outcome in found} == {False, True}


WHOLE: dict[str, Callable[[], Any]] = {
    "signs": lambda: (X >= 0).double() * 2 - 1,
    "product": lambda: torch.arange(6.0).double() * torch.arange(6.0).double(),
    "scaled": lambda: X * 0.5 / -4 * 8,
    "halves": lambda: torch.arange(6.0).double() / 4 + 0.5,
    "in place": lambda: torch.arange(6.0).double().mul_(3).sub_(1),
    "square": lambda: torch.arange(6.0).double() ** 2,
    "root": lambda: torch.arange(6.0).double().square().sqrt(),
    "sum": lambda: torch.arange(6.0).double().sum(),
    "mean": lambda: torch.arange(5.0).double().mean(),
    "cumsum": lambda: torch.ones(9).double().cumsum(0),
    "counts": lambda: torch.zeros(3).double().index_add(0, torch.tensor([0, 1, 0]), torch.ones(3).double()),
    "matmul": lambda: torch.ones(3, 4).double() @ torch.eye(4).double(),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_exact_has_no_error(name: str, dtype: str) -> None:
    exact, found = runs(WHOLE[name], dtype)
    assert all(torch.equal(outcome, exact) for outcome in found)


INEXACT: dict[str, tuple[Callable[[], Any], str]] = {
    "beyond the digits": (lambda: tensor(4097.0) * 4097.0, "float32"),
    "beyond fewer digits": (lambda: tensor(17.0) * 17.0, "bfloat16"),
    "cancelled": (lambda: tensor(2.0**30, 1.0, -(2.0**30)).sum(0, keepdim=True), "float32"),
    "a third": (lambda: tensor(1.0) / 3.0, "float64"),
    "decimal": (lambda: tensor(0.1) + 0.2, "float64"),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_only_looks_exact_has_one(name: str) -> None:
    f, dtype = INEXACT[name]
    exact, found = runs(f, dtype)
    assert all(outcome != exact for outcome in found)


def test_a_run_that_goes_another_way_is_perturbed_on_its_own() -> None:
    """Python's control flow by values: neither errors nor decisions of the recorded run are taken for its own."""
    rounding = Rounding(RoundingErrors.of("float32", Arithmetic()), [0])
    a, b = tensor([0.7, 1.3], [0.2, -0.4]), tensor([1.1, 0.3], [0.6, 2.2])
    with rounding.recording():
        (a.sin() @ b > 0).sum()
    with rounding.everywhere():
        found = a.cos() @ b
        larger = a.sin() < b
    expected = a.cos() @ b
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert torch.equal(larger, a.sin() < b)


RNG = np.random.default_rng(0)
LOSSES: dict[str, tuple[Any, Any]] = {
    "max-plus": (
        max_plus(),
        {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=(4, 5))},
    ),
    "scatter_reduce": (lambda p, b: scattered(p["x"] * 1.1, "amax"), {"x": RNG.normal(size=(6, 2))}),
    "signs in int8": (lambda p, b: abs_sign(p["x"]), {"x": np.array([-1.7, -0.9, 0.2, 1.6])}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_backward_that_looks_for_equality_has_a_floor_like_others(name: str) -> None:
    loss, params = LOSSES[name]
    candidate = gw.Candidate("torch", loss)
    report = gw.verify(candidate, params, cotangent="random", dtypes=("float64", "float32"))
    assert report, repr(report)
    for row in report.rows:
        assert row.limit is not None
        assert row.reference is not None
        assert row.limit < (1e-9 if row.dtype == "float64" else 1e-4) * row.reference
