"""Other derivatives of a loss in torch, on the backends that it was not written for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops
from gradwitness.graph import trace
from tests.derivatives.found import by_candidate, derivative

rng = np.random.default_rng(0)
POINT = {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=2)}, {"x": rng.normal(size=(4, 3)), "m": np.arange(4)}


def loss(p: Any, b: Any) -> Any:
    """A mean over examples, with a constant of each: the graph of one example is not that of another."""
    hidden = torch.tanh(b["x"] @ p["w"]) * (b["m"] % 3)[:, None]
    return ((hidden @ p["v"]) ** 2).mean()


@pytest.mark.parametrize("which", ["jvp", "vjp", "hvp", "hessian", "per-example"])
def test_every_backend_agrees(which: str) -> None:
    report = derivative(which, {"torch": loss}, *POINT, backends=["numpy", "jax"])
    found = by_candidate(report)
    assert {verdict for verdicts in found.values() for verdict in verdicts} == {"agree"}, repr(report)
    assert {label.partition(" ")[0] for label in found} == {"numpy", "torch", "jax"}


def test_a_graph_of_a_whole_batch_is_no_candidate_for_examples() -> None:
    graph = trace(lambda p, b: (ops.tanh(b["x"] @ p["w"]) @ p["v"]).mean(), *POINT)
    with pytest.raises(gw.GradwitnessError, match="holds for its whole batch"):
        derivative("per-example", {"torch": loss, "mine": gw.Candidate("jax", graph)}, *POINT)


def test_who_cannot_differentiate_costs_the_others_nothing() -> None:
    def in_numpy(p: Any, b: Any) -> Any:
        return np.mean((np.tanh(b["x"] @ p["w"]) @ p["v"]) ** 2)

    for which in ("hvp", "per-example"):
        found = by_candidate(derivative(which, {"torch": loss, "numpy": in_numpy}, *POINT))
        assert found.pop("numpy") == {"unsupported"}
        assert set().union(*found.values()) == {"agree"}


def test_a_loss_that_runs_in_float32_alone_is_told_so() -> None:
    def narrow(p: Any, b: Any) -> Any:
        if p["w"].dtype != torch.float32:
            raise RuntimeError("expected Float but found Double")
        return loss(p, b)

    with pytest.raises(gw.GradwitnessError, match="expected Float but found Double"):
        derivative("per-example", {"torch": narrow}, *POINT, dtypes="float32")
