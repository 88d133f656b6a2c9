"""The derivative along a direction, as a graph: the adjoint identity <J u, v> = <u, J^T v> for every op, and the
product of the Hessian with a direction against differences of the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwitness import ops, registry
from gradwitness.derivatives import RULES, tangent
from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction
from gradwitness.networks import NETWORKS, network
from gradwitness.networks.single_ops import op_problems
from gradwitness.ops.vocabulary import OPS
from gradwitness.problem import Problem

INTERPRETER = registry.interpreter()
PROBLEMS = {problem.name: problem for problem in op_problems(0)}
STILL = {"stop_gradient", "one_hot", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
STEP = 1e-5


def leaves_along(problem: Problem, seed: int = 0) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(the graph of the derivative, its leaves, the directions by path of what they move)."""
    graph = problem.graph
    wrt = tuple(path for path in problem.differentiated if path in graph.leaves)
    found, rng = tangent(graph, wrt), np.random.default_rng(seed)
    along = {path: rng.standard_normal(problem.leaves[path].shape) for path in wrt}
    leaves = {**problem.leaves, **graph.constants, **found.constants}
    return found, leaves | {direction(path): v for path, v in along.items()}, along


def gradient(problem: Problem, along: dict[str, Any] | None = None, step: float = 0.0) -> dict[str, Any]:
    graph, moved = problem.graph, {path: problem.leaves[path] + step * v for path, v in (along or {}).items()}
    tape = INTERPRETER.forward(graph, {**problem.leaves, **graph.constants, **moved})
    return INTERPRETER.backward(tape, problem.differentiated)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_adjoint_identity_holds(name: str) -> None:
    problem = PROBLEMS[name]
    found, leaves, along = leaves_along(problem)
    forward = INTERPRETER.loss(INTERPRETER.forward(found, leaves))
    parts = [np.vdot(g, along[path]) for path, g in gradient(problem).items() if path in along]
    scale = sum(float(np.sum(np.abs(g * along[path]))) for path, g in gradient(problem).items() if path in along)
    assert forward == pytest.approx(float(sum(parts)), rel=1e-10, abs=1e-12 * max(scale, 1.0))


@pytest.mark.parametrize("name", NETWORKS)
def test_its_gradient_is_the_product_with_the_hessian(name: str) -> None:
    problem = network(name)
    found, leaves, along = leaves_along(problem)
    tape = INTERPRETER.forward(found, leaves)
    product = INTERPRETER.backward(tape, [path for path in along if path in found.leaves])
    ahead, behind = (gradient(problem, along, sign * STEP) for sign in (1, -1))
    largest = max(float(np.max(np.abs(v))) for v in product.values())
    for path in along:
        differences = (ahead[path] - behind[path]) / (2 * STEP)
        np.testing.assert_allclose(product.get(path, 0.0), differences, atol=1e-6 * largest)


def test_a_rule_that_is_wrong_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "tanh", lambda a, t: t[0] * (1.0 - a.result))
    with pytest.raises(AssertionError):
        test_the_adjoint_identity_holds(next(name for name in PROBLEMS if name.startswith("tanh")))


def test_every_elementary_op_has_a_rule_or_stands_still() -> None:
    elementary = {name for name, op in OPS.items() if op.definition is None and not op.origin}
    assert elementary - STILL <= set(RULES)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), ((2, 1), (1, 0))])
def test_of_windows_that_overlap_and_tie_the_first_is_taken(stride: Any, padding: Any) -> None:
    x = np.round(np.random.default_rng(1).normal(size=(2, 2, 6, 6)))  # whole numbers, of which many tie

    def loss(p: Any, b: Any) -> Any:
        return (ops.max_pool2d(p["x"], kernel_size=3, stride=stride, padding=padding) ** 2.0).sum()

    problem = Problem("pool", loss, {"x": x}, {})
    found, leaves, along = leaves_along(problem)
    forward = INTERPRETER.loss(INTERPRETER.forward(found, leaves))
    assert forward == pytest.approx(float(np.vdot(gradient(problem)["x"], along["x"])))


def test_a_variance_has_the_second_derivative_of_its_mean_too() -> None:
    problem = Problem("var", lambda p, b: ops.var(p["x"]), {"x": np.array([1.0, 4.0, -2.0])}, {})
    found, leaves, along = leaves_along(problem)
    product = INTERPRETER.backward(INTERPRETER.forward(found, leaves), ["x"])["x"]
    hessian = 2 / 3 * (np.eye(3) - np.ones((3, 3)) / 3)  # of the population variance
    np.testing.assert_allclose(product, hessian @ along["x"], atol=1e-12)


def test_an_op_without_a_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "tanh")
    with pytest.raises(UnsupportedError, match="tanh has no rule"):
        leaves_along(network("mlp"))


def test_a_mask_of_infinities_makes_no_nan() -> None:
    mask = np.tril(np.ones((3, 3), bool))

    def loss(p: Any, b: Any) -> Any:
        scores = ops.where(mask, p["x"], np.full((3, 3), -np.inf))
        return (ops.softmax(scores, axis=1) * b["w"]).sum()

    rng = np.random.default_rng(0)
    problem = Problem("masked", loss, {"x": rng.normal(size=(3, 3))}, {"w": rng.normal(size=(3, 3))})
    found, leaves, along = leaves_along(problem)
    forward = INTERPRETER.loss(INTERPRETER.forward(found, leaves))
    assert forward == pytest.approx(float(np.vdot(gradient(problem)["x"], along["x"])))
