"""What a network takes at least, counted two ways, and the time that a machine cannot take less than."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gradwitness import ops, registry
from gradwitness.evidence import effort
from gradwitness.networks import network
from gradwitness.problem import Problem
from gradwitness.timing import roofline
from gradwitness.timing.roofline import Machine, Rates, Work, work

B, N, M = 5, 7, 3


def linear(params: Any, batch: Any) -> Any:
    return ops.matmul(batch["x"], params["w"]).sum()


def test_a_product_is_two_flops_a_term_and_the_batch_gets_no_gradient() -> None:
    problem = Problem("linear", linear, {"w": np.ones((N, M))}, {"x": np.ones((B, N))})
    found = work(problem.graph, problem, "float32")
    assert found["forward"] == Work(2 * B * N * M + B * M, 4 * (B * N + N * M))
    assert found["backward"] == Work(2 * B * N * M, 4 * (B * N + 2 * N * M))
    both = Problem("linear", linear, {"w": np.ones((N, M))}, {"x": np.ones((B, N))}, wrt=("w", "x"))
    assert work(both.graph, both, "float64")["backward"] == Work(4 * B * N * M, 16 * (B * N + N * M))


@pytest.mark.parametrize("name", ["mlp", "transformer", "lstm", "gaussian_mixture"])
def test_terms_are_those_that_the_rules_themselves_add_up(name: str) -> None:
    """Run on ones, a contraction gives the number of its terms."""
    problem = network(name)
    graph, counted = problem.graph.decomposed(), dict[int, float]()

    def count(node: Any, step: Any) -> Any:
        if node.op == "matmul":
            counted[node.id] = effort._products(node, step)
        return step.output

    registry.interpreter().forward(graph, problem.leaves, on_value=count)
    assert counted == {node.id: roofline._terms(node) for node in graph.nodes if node.op == "matmul"}
    assert counted


def test_backward_is_about_twice_forward_where_products_rule() -> None:
    found = work((problem := network("mlp", batch=64, width=256)).graph, problem, "float32")
    assert 1.7 < found["backward"].flops / found["forward"].flops < 2.1
    assert found["forward_backward"].flops == found["forward"].flops + found["backward"].flops


@pytest.mark.parametrize(("work", "least"), [(Work(1e9, 1.0), 0.1), (Work(1.0, 1e9), 0.5)])
def test_whatever_takes_longer_is_the_limit(work: Work, least: float) -> None:
    assert Rates(1e10, 2e9).least(work) == least


class Here:
    """A process that is this one, and counts what it is asked."""

    asked = 0

    def apply(self, function: Any, *args: Any) -> Any:
        self.asked += 1
        return function(None, *args)


def test_the_machine_is_asked_once_and_its_fastest_library_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness.timing.roofline.SIDES", (64, 128))
    monkeypatch.setattr("gradwitness.timing.roofline.COPIED", 2**20)
    machine, here = Machine(1), Here()
    for _ in range(2):
        machine.ask(here, "numpy", "float32", "cpu")
    assert here.asked == 2  # one rate, one bandwidth
    found = machine.rates("float32", "cpu")
    assert found is not None
    x = np.ones((128, 128), np.float32)
    started = time.perf_counter()
    x @ x
    taken = time.perf_counter() - started
    assert found.flops > 0.01 * 2 * 128**3 / taken
    machine._flops["other", "float32", "cpu"] = 2 * found.flops
    assert machine.rates("float32", "cpu") == Rates(2 * found.flops, found.bytes)
    assert machine.rates("float64", "cpu") is None
    assert machine.rates("float32", "cuda") is None
