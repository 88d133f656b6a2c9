"""What is decided at the point is listed, and held against the loss elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from tests.capture.trust import ROUTED, WEIGHTS, branching, routed, verdicts, verified, why_not


def routed_wrongly(p: Any, b: Any) -> Any:
    weights, chosen = torch.softmax(p["r"], -1).topk(2)
    experts = torch.stack([(p["e"][j] * b["x"]).sum() for j in range(4)])
    return (weights / weights.sum().detach() * experts[chosen]).sum()


def test_a_top_k_is_a_decision_and_is_listed() -> None:
    report = verified(routed, ROUTED, {"x": np.array([1.0, -2.0, 0.5])})
    assert report, repr(report)
    assert all(row.captured for row in report.rows)
    assert any("which elements topk picks is decided at the point" in r for row in report.rows for r in row.remarks)
    assert "which elements topk picks" in report.table()


def test_what_a_router_detaches_is_found_and_its_line_named() -> None:
    report = verified(routed_wrongly, ROUTED, {"x": np.array([1.0, -2.0, 0.5])})
    (row,) = (row for row in report.rows if row.parameter == "r")
    assert str(row.verdict) == "disagree"
    assert f"; it stops where the loss detaches: {__file__}:" in row.message


TOKENS = {"x": np.random.default_rng(5).standard_normal((40, 5))}
EXPERTS = {
    "r": np.random.default_rng(6).standard_normal((5, 4)),
    "e": np.random.default_rng(7).standard_normal((4, 5, 3)),
    "g": np.full(5, 1.1),
}


def mixed(p: Any, b: Any, *, stops: bool = False, within: Any = torch.float64) -> Any:
    """A mixture of experts, two for each token, after a norm in float32 as in language models."""
    x = b["x"].to(within) * torch.rsqrt(b["x"].to(within).pow(2).mean(-1, keepdim=True) + 1e-6)
    x = p["g"] * x.to(p["g"].dtype)
    weights, chosen = torch.softmax((x @ p["r"]).to(within), -1).to(x.dtype).topk(2)
    total = weights.sum(-1, keepdim=True)
    weights = weights / (total.detach() if stops else total)
    every = torch.einsum("ti,kij->tkj", x, p["e"]).tanh()
    picked = every.gather(1, chosen[..., None].expand(-1, -1, 3))
    return (weights[..., None] * picked).pow(2).sum()


@pytest.mark.parametrize("within", [torch.float64, torch.float32])
def test_a_router_may_pick_other_experts_where_losses_are_compared(within: Any) -> None:
    report = verified(partial(mixed, within=within), EXPERTS, TOKENS, dtypes=["float64", "float32"], backends="all")
    assert report, repr(report)
    native = [row for row in report.rows if row.captured]
    assert {(row.dtype, row.parameter) for row in native} >= {(d, p) for d in ("float64", "float32") for p in EXPERTS}


def test_picks_elsewhere_are_others_so_that_the_test_above_asks_something() -> None:
    graph = gw.capture(gw.Candidate("torch", mixed), EXPERTS, TOKENS)
    moved = {path: x + 0.1 * np.random.default_rng(8).standard_normal(x.shape) for path, x in EXPERTS.items()}
    assert graph.is_same_as(gw.capture(gw.Candidate("torch", mixed), EXPERTS, TOKENS))
    assert not graph.is_same_as(gw.capture(gw.Candidate("torch", mixed), moved, TOKENS))


@pytest.mark.parametrize("within", [torch.float64, torch.float32])
def test_what_such_a_router_detaches_is_found(within: Any) -> None:
    report = verified(partial(mixed, within=within, stops=True), EXPERTS, TOKENS)
    (row,) = (row for row in report.rows if row.parameter == "r")
    assert str(row.verdict) == "disagree", repr(report)


def looked_up(p: Any, b: Any, *, steps: int = 100_000) -> Any:
    """The identity, by a table too fine to be seen; what is float32 inside hides its slope from small steps."""
    table = torch.linspace(-4, 4, steps, dtype=torch.float64)
    return (table[torch.searchsorted(table, p["w"])] + 0 * p["w"].float().exp().double()).sum() + p["w"].float().sum()


@pytest.mark.parametrize("steps", [3_000, 10_000, 1_000_000])
def test_a_table_is_no_loss_that_stands_still(steps: int) -> None:
    report = verified(partial(looked_up, steps=steps))
    assert "agree" not in verdicts(report), repr(report)


def read_out(p: Any, b: Any) -> Any:
    return (p["w"] * p["w"].sum().item()).sum()


def test_a_number_that_is_read_out_is_caught_by_the_values_elsewhere() -> None:
    report = verified(read_out)
    assert verdicts(report) == {"disagree"}
    assert "the losses differ at seeded neighbour 1" in why_not(report)


def test_a_branch_on_a_number_is_taken_as_at_the_point_and_listed() -> None:
    report = verified(branching)
    assert report, repr(report)
    assert all("is read out of a tensor" in row.remarks[0] for row in report.rows)


def test_what_a_mask_writes_follows_the_mask() -> None:
    def loss(p: Any, b: Any) -> Any:
        x = p["w"] * 1.0
        x[x > 1.0] = 0.5
        flags = torch.zeros(3).double()
        flags[p["w"] > 1.0] = 1.0
        return (x * x + flags * p["w"]).sum()

    report = verified(loss)
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


def test_indices_that_are_used_are_decisions_and_others_are_not() -> None:
    def used(p: Any, b: Any) -> Any:
        return (b["y"].gather(1, p["w"].max(1, keepdim=True).indices) * p["w"]).sum()

    def unused(p: Any, b: Any) -> Any:
        return p["w"].max(1, keepdim=True).values.sum()

    params = {"w": WEIGHTS["w"]}
    graphs = [gw.capture(gw.Candidate("torch", f), params, {"y": WEIGHTS["w"]}) for f in (used, unused)]
    assert [[remark.kind for remark in graph.remarks] for graph in graphs] == [["decision"], []]


def drawn_by_its_numbers(p: Any, b: Any) -> Any:
    torch.manual_seed(0)
    return (torch.bernoulli(torch.sigmoid(p["w"])) * p["w"] ** 2).sum()


def rounded_in_place(p: Any, b: Any) -> Any:
    whole = p["w"] / 4 + 1.2
    whole[1:].floor_()
    return (whole * p["w"]).sum()


@pytest.mark.parametrize(("loss", "op"), [(drawn_by_its_numbers, "bernoulli"), (rounded_in_place, "floor")])
def test_what_jumps_with_its_numbers_is_a_decision(loss: Any, op: str) -> None:
    report = verified(loss)
    assert report, repr(report)
    assert all(row.captured for row in report.rows)
    assert {remark.partition(" (")[0] for row in report.rows for remark in row.remarks} == {
        f"{op} is decided at the point"
    }
