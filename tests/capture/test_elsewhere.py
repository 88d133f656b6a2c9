"""A captured loss on backends that it was not written for, and a loss that cannot be captured."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
from tests.capture.trust import ROUTED, W, branching, implicit, routed, verified, why_not


def tanh_in_jax(p: Any, b: Any) -> Any:
    return jnp.tanh(p["w"] * jnp.arange(3.0)).sum()


ELSEWHERE = {"torch": (routed, ROUTED, {"x": np.array([1.0, -2.0, 0.5])}), "jax": (tanh_in_jax, W, {})}


@pytest.mark.parametrize(("backend", "others"), [("torch", ["numpy", "jax"]), ("jax", ["numpy", "torch"])])
def test_a_captured_loss_runs_on_the_backends_that_it_was_not_written_for(backend: str, others: list[str]) -> None:
    loss, params, batch = ELSEWHERE[backend]
    report = verified(loss, params, batch, backend, backends=others, dtypes=("float64", "float32"))
    assert {row.candidate for row in report.rows} == {backend, *others}
    assert {str(row.verdict) for row in report.rows if row.candidate in others} == {"agree"}


def test_a_graph_that_is_not_the_loss_says_nothing_of_it_elsewhere() -> None:
    """In jax the stairs of a bisection have the derivative that 256 bits confirm, 0."""
    report = verified(implicit, backends=["numpy", "jax"])
    found = {row.candidate: str(row.verdict) for row in report.rows}
    assert found == {"torch": "agree", "numpy": "inconclusive", "jax": "inconclusive"}
    assert all("was not shown to be the loss" in row.message for row in report.rows if row.candidate != "torch")


def test_weights_are_drawn_before_a_loss_runs_elsewhere() -> None:
    report = verified(lambda p, b: p["w"].sin(), backends=["numpy"], cotangent="random")
    assert report, repr(report)


def test_a_graph_stands_wherever_a_traced_loss_does() -> None:
    graph = gw.capture(gw.Candidate("torch", branching), W)
    assert gw.verify(graph, W, backends=["numpy", "torch"])
    assert gw.Problem("captured", graph, W, {}).graph is graph


def test_what_cannot_be_captured_cannot_run_elsewhere() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"none could be read:\ntorch in float64: .*zeta"):
        verified(lambda p, b: torch.special.zeta(p["w"] + 1, p["w"]).sum(), backends="numpy")
    with pytest.raises(gw.GradwitnessError, match="capture takes a Candidate"):
        gw.capture(branching, W)  # type: ignore[arg-type]


def test_values_alone_judge_where_that_is_asked_for() -> None:
    report = verified(branching, capture="never")
    assert report, repr(report)
    assert why_not(report) == 'capture="never" was asked for'


def test_what_is_too_large_for_a_graph_is_judged_by_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness.run.captured.LARGEST", 2)
    report = verified(branching)
    assert report, repr(report)
    assert why_not(report) == "it has 3 parameters, and graphs of up to 2 are held in memory beside them"


def test_a_subprocess_captures_what_this_process_does() -> None:
    here, there = verified(branching), verified(branching, timeout=60)
    assert [row.captured for row in there.rows] == [row.captured for row in here.rows] == [2]
