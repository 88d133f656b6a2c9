"""What is decided at the point is listed, and held against the loss elsewhere."""

from __future__ import annotations

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
