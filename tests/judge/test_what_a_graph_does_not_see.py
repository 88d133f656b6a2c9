"""A graph is no judge of what it has not seen: numbers that leave the framework without a trace, and faint leaves."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from tests.judge.cases import Case, expect_refused, normal

W, X = normal(1, 6, 5), normal(2, 7, 5)

# From a tensor to the same numbers, by which no op of torch is run

ESCAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "numpy": lambda x: torch.from_numpy(x.detach().numpy().copy()),
    "asarray": lambda x: torch.tensor(np.asarray(x.detach())),
    "a list": lambda x: torch.tensor(x.detach().tolist(), dtype=x.dtype),
    "pickle": lambda x: pickle.loads(pickle.dumps(x.detach())),  # its own
    "another thread": lambda x: ThreadPoolExecutor(1).submit(lambda: x.detach().clone()).result(),
}


def in_float32(p: Any, b: Any) -> Any:
    return torch.tanh(b["x"].float() @ p["w"].float().T) * 1e-4


@pytest.mark.parametrize("escape", ESCAPES)
def test_numbers_that_leave_torch_are_no_constants(escape: str) -> None:
    """h * h with one factor out of sight, so that a quarter of the gradient is missing. Differences of the loss are
    blind, as it computes in float32; those of the graph are not, and have the same part missing."""

    def loss(p: Any, b: Any) -> Any:
        h = in_float32(p, b)
        return 1 + (h**2).mean() + (h * ESCAPES[escape](h)).mean()

    expect_refused(Case({"torch": loss}, {"w": W}, {"x": X}, verdicts=["inconclusive"], how={"dtypes": "float64"}))


def test_the_same_in_sight_is_judged_by_its_graph() -> None:
    def loss(p: Any, b: Any) -> Any:
        return 1 + 2 * (in_float32(p, b) ** 2).mean()

    (row,) = gw.verify({"torch": loss}, {"w": W}, {"x": X}, dtypes="float64").rows
    assert row.captured is not None
    assert str(row.verdict) == "agree"


class ByNumPy(torch.autograd.Function):
    """sin, whose forward torch does not see."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * torch.cos(ctx.saved_tensors[0])


def sine(x: torch.Tensor) -> torch.Tensor:
    rule: Any = ByNumPy
    found: torch.Tensor = rule.apply(x)
    return found


def small(p: Any, b: Any) -> Any:
    h = torch.tanh(b["x"].float() @ p["w"].float().T)
    return 1 + 1e-8 * ((h**2).mean() + sine(h).mean())


def beside_a_large_one(p: Any, b: Any) -> Any:
    return 1e12 * (p["a"] ** 2).sum() + (p["w"] ** 2).sum() + sine(p["w"]).sum()


@pytest.mark.parametrize(
    ("loss", "params", "batch"),
    [(small, {"w": W}, {"x": X}), (beside_a_large_one, {"a": normal(3, 8), "w": 0.03 * W}, {})],
)
def test_a_right_rule_with_its_forward_in_numpy_is_not_accused(loss: Any, params: Any, batch: Any) -> None:
    report = gw.verify({"torch": loss}, params, batch, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} <= {"agree", "inconclusive"}


FAINT = {"a": normal(4, 8), "b": 0.03 * normal(5, 6)}


def test_a_faint_leaf_is_not_judged_by_a_graph_that_was_not_seen_to_be_the_loss_there() -> None:
    def loss(p: Any, b: Any) -> Any:
        return 1e13 * (p["a"] ** 2).sum() + sum(x * x.item() for x in p["b"])

    expect_refused(Case({"torch": loss}, FAINT, leaves=["b"], verdicts=["inconclusive"], how={"dtypes": "float64"}))


def test_a_faint_leaf_of_a_plain_loss_is_judged_by_its_graph() -> None:
    report = gw.verify(
        {"torch": lambda p, b: 1e13 * (p["a"] ** 2).sum() + (p["b"] ** 2).sum()}, FAINT, dtypes="float64"
    )
    assert [str(row.verdict) for row in report.rows] == ["agree", "agree"]


def detached(offset: float, scale: float) -> Callable[[Any, Any], Any]:
    return lambda p, b: offset + (p["a"] ** 2).sum() + scale * (p["b"].detach() ** 2).sum()


def test_none_is_missing_where_the_graph_leads_although_differences_see_nothing() -> None:
    expect_refused(
        Case({"torch": detached(1e8, 1e-7)}, FAINT, leaves=["b"], verdicts=["missing"], how={"dtypes": "float64"})
    )


def test_none_of_a_loss_that_stands_still_in_its_digits_is_not_vouched_for() -> None:
    loss = lambda p, b: 1e17 + (p["a"].detach() ** 2).sum()  # noqa: E731
    expect_refused(Case({"torch": loss}, FAINT, leaves=["a"], verdicts=["inconclusive"], how={"dtypes": "float64"}))


def test_zeros_that_blunt_differences_cannot_tell_from_little_say_so() -> None:
    def loss(p: Any, b: Any) -> Any:
        return 1e8 + np.sum(p["a"] ** 2) + 1e-7 * np.sum(p["b"])

    mine = gw.Candidate("numpy", loss, gradient=lambda p, b: {"a": 2 * p["a"], "b": 0 * p["b"]})
    rows = {row.parameter: row for row in gw.verify(mine, FAINT, dtypes="float64").rows}
    assert str(rows["b"].verdict) == "agree"
    assert "it is zero as far as differences tell" in rows["b"].message
    assert rows["a"].message == ""
