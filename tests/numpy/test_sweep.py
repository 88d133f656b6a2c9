"""The reverse sweep: each edge once, cotangents of several consumers added up, nothing else touched."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gradwitness import ops, trace
from gradwitness.graph import Graph, Node
from gradwitness.networks import NETWORKS, network
from gradwitness_numpy import sweep
from gradwitness_numpy.rule import Step
from gradwitness_numpy.rules import RULES

X = np.array([0.3, -0.7, 1.1])


def three_consumers() -> Graph:
    """h feeds three consumers: d loss / dh = cos(h) + 2 + 2 h."""

    def loss(p: Any, b: Any) -> Any:
        h = p["x"] * 1.5
        return (ops.sin(h) + h * 2 + h * h).sum()

    return trace(loss, {"x": X}, {})


def gradient(graph: Graph, **leaves: np.ndarray) -> dict[str, Any]:
    tape = sweep.forward(graph, RULES, {**graph.constants, **leaves})
    return sweep.backward(tape, tuple(leaves), np.ones(()))


def expected() -> np.ndarray:
    return 1.5 * (np.cos(1.5 * X) + 2 + 2 * 1.5 * X)


def test_three_consumers_sum_three_cotangents() -> None:
    assert np.allclose(gradient(three_consumers(), x=X)["x"], expected(), rtol=1e-15)


def test_an_overwriting_sweep_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: Any, node: Any, cotangent: Any) -> None:
        self.sums[node.id] = cotangent

    monkeypatch.setattr(sweep._Pending, "send", overwrite)
    assert not np.allclose(gradient(three_consumers(), x=X)["x"], expected(), rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_edge_is_visited_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = network(name)
    graph, wrt = problem.graph, problem.differentiated
    visits: Counter[int] = Counter()
    sent_to: Counter[int] = Counter()
    send = sweep._Pending.send
    monkeypatch.setattr(
        sweep._Pending, "send", lambda self, node, g: (sent_to.update([node.id]), send(self, node, g))[1]
    )
    tape = sweep.forward(graph, RULES, {**graph.constants, **problem.leaves})

    def on_cotangent(node: Node, step: Step, g: Any, sent: Any) -> Any:
        visits.update([node.id])
        return sent

    sweep.backward(tape, wrt, np.ones(np.shape(tape.loss)), on_cotangent=on_cotangent)
    active = graph.active(wrt)
    assert set(visits.values()) == {1}
    edges = Counter(i.id for n in graph.nodes if n.is_op and n.id in active for i in n.inputs if i and i.id in active)
    assert {k: v for k, v in sent_to.items() if k != graph.output.id} == {
        k: v for k, v in edges.items() if _direct(graph, k)
    }


def _direct(graph: Graph, node_id: int) -> bool:
    """Whether cotangents reach this node from ops (an op with several results gets them from its outputs)."""
    return not isinstance(next(n for n in graph.nodes if n.id == node_id).spec, tuple)


def test_slices_are_summed_in_place() -> None:
    graph = trace(lambda p, b: (p["x"][0] * 2 + p["x"][1] * 3 + p["x"][0] * 5 + p["x"].sum()).sum(), {"x": X}, {})
    assert np.array_equal(gradient(graph, x=X)["x"], [8.0, 4.0, 1.0])


def test_an_unused_result_of_an_op_with_two_results_gets_zeros() -> None:
    rng = np.random.default_rng(0)
    shapes = {"x": (3, 2), "h": (3, 4), "c": (3, 4), "w_ih": (16, 2), "w_hh": (16, 4), "b": (16,)}
    leaves = {name: rng.standard_normal(shape) for name, shape in shapes.items()}

    def loss(p: Any, b: Any) -> Any:
        h, _ = ops.lstm_cell(p["x"], p["h"], p["c"], p["w_ih"], p["w_hh"], p["b"], p["b"])
        return (h * h).sum()

    graph = trace(loss, leaves, {})
    fused, elementary = gradient(graph, **leaves), gradient(graph.decomposed(), **leaves)
    for path in leaves:
        assert np.allclose(fused[path], elementary[path], rtol=1e-12)


def test_forward_again_recomputes_only_what_changed() -> None:
    problem = network("transformer")
    graph = problem.graph
    tape = sweep.forward(graph, RULES, {**graph.constants, **problem.leaves})
    path = problem.differentiated[-1]
    changed = problem.leaves[path] * 1.1
    ran: list[int] = []

    def on_value(node: Node, step: Step) -> Any:
        ran.append(node.id)
        return step.output

    again = sweep.forward(
        graph,
        RULES,
        {**graph.constants, **problem.leaves, path: changed},
        on_value=on_value,
        reuse=tape,
        changed=[path],
    )
    afresh = sweep.forward(graph, RULES, {**graph.constants, **problem.leaves, path: changed})
    assert again.loss == afresh.loss != tape.loss
    assert len(ran) < sum(n.is_op for n in graph.nodes)


def test_float32_stays_float32_in_every_op_of_the_zoo() -> None:
    for name in NETWORKS:
        problem = network(name)
        leaves = {p: a.astype(np.float32) if a.dtype.kind == "f" else a for p, a in problem.leaves.items()}
        graph = problem.graph
        constants = {p: a.astype(np.float32) if a.dtype.kind == "f" else a for p, a in graph.constants.items()}
        tape = sweep.forward(graph, RULES, {**constants, **leaves})
        wide = [n for n in graph.nodes if n.is_op and getattr(tape.values[n.id], "dtype", None) == np.float64]
        assert not wide, (name, wide)
        found = sweep.backward(tape, problem.differentiated, np.ones(np.shape(tape.loss), np.float32))
        assert {g.dtype for g in found.values()} == {np.dtype(np.float32)}, name
