"""A loss without a tape, its derivative along a direction by forward mode, and a tape that is kept in segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gradwitness import registry
from gradwitness.lowering import in_segments
from gradwitness.networks import network
from gradwitness.problem import Candidate
from gradwitness.protocol import ForwardMode
from gradwitness_torch.functions import functions

PROBLEM = network("mlp").rounded("float64")


def prepared(backend: str, **options: Any) -> Any:
    return registry.backend(backend).prepare(
        Candidate(backend, options=options), PROBLEM, dtype="float64", device="cpu"
    )


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_forward_mode_is_the_gradient_along_a_direction(backend: str) -> None:
    ready = prepared(backend)
    offers: object = ready
    assert isinstance(offers, ForwardMode)
    rng = np.random.default_rng(0)
    direction = {path: rng.standard_normal(x.shape) for path, x in PROBLEM.primals.items()}
    value, gradient = ready.value_and_gradient(PROBLEM.primals)
    placed = ready.place(PROBLEM.primals)
    found = float(ready.tangent(placed, ready.place(direction)))
    assert found == pytest.approx(sum(float((gradient[path] * d).sum()) for path, d in direction.items()), rel=1e-12)
    assert float(ready.infer(placed)) == pytest.approx(value, rel=1e-14)


def test_nothing_is_kept_of_a_loss_alone() -> None:
    ready = prepared("torch")
    placed = ready.place(PROBLEM.primals)
    assert ready.forward(placed).loss.requires_grad
    assert not ready.infer(placed).requires_grad


def test_what_is_used_for_the_last_time_is_let_go() -> None:
    graph = PROBLEM.graph
    plain, freed = graph.source(), graph.source(free=True)
    assert "del" not in plain
    kept = {f"v{node.id}" for node in graph.nodes if node.op != "literal"}
    gone = [name for line in freed.splitlines() if line.startswith("    del ") for name in line[8:].split(", ")]
    assert sorted(gone) == sorted(kept - {f"v{graph.output.id}"})


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_in_segments_the_gradient_is_the_same(backend: str) -> None:
    (value, gradient), (again, other) = (
        prepared(backend, **options).value_and_gradient(PROBLEM.primals) for options in ({}, {"segments": 3})
    )
    assert again == pytest.approx(value, rel=1e-14)
    for path, g in gradient.items():
        np.testing.assert_allclose(other[path], g, rtol=1e-11, atol=1e-14)


def test_torch_saves_less_in_segments() -> None:
    assert saved(prepared("torch", segments=3)) < saved(prepared("torch")) / 2


def saved(ready: Any) -> int:
    """Elements that the tape of a forward keeps beside its leaves."""
    placed, found = ready.place(PROBLEM.primals), dict[int, int]()

    def pack(x: torch.Tensor) -> torch.Tensor:
        if not x.is_leaf:
            found[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        tape = ready.forward(placed)
    assert tape.loss.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("name", ["lstm", "transformer"])
@pytest.mark.parametrize("count", [1, 4, 1000])
def test_segments_are_all_of_the_graph_once(name: str, count: int) -> None:
    problem = network(name)
    leaves = {path: torch.tensor(x) for path, x in problem.leaves.items()}
    wrapped: list[Any] = []

    def wrap(run: Any) -> Any:
        wrapped.append(run)
        return run

    table = functions("float64")
    loss = in_segments(problem.graph, table, count, wrap)
    whole = registry.backend("torch").lower(problem.graph)
    assert float(loss(leaves)) == float(whole(leaves))
    assert len(wrapped) == min(count, sum(node.op not in ("leaf", "literal") for node in problem.graph.nodes))
