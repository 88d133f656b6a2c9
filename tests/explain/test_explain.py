"""`explain`: the worked example number by number, the chain rule along every edge of the zoo, and a step downhill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwitness import ops, registry
from gradwitness.errors import GradwitnessError
from gradwitness.explain import Edge, Explanation, explain
from gradwitness.explain.derivative import FAMILY_WORDS, WORDS, words
from gradwitness.networks import NETWORKS, PUBLISHED, network
from gradwitness.ops import OPS, Value
from gradwitness.problem import Problem
from gradwitness_numpy.rules import RULES
from tests.explain.truth import BY_Y, DIGITS, GRADIENTS, LOSS, H, Y, Z

each_network = pytest.mark.parametrize("name", NETWORKS)


def near(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.ravel(actual), np.ravel(expected), rtol=DIGITS, atol=0)


@pytest.fixture(scope="module")
def article() -> Explanation:
    return explain(network("article"), rate=0.1, published=PUBLISHED["article"])


@pytest.mark.parametrize(("node", "expected"), [("add", Z), ("sigmoid", H), ("linear", Y), ("mse", LOSS)])
def test_values_going_forward(article: Explanation, node: str, expected: Any) -> None:
    near(article.visit(node).value, expected)


def test_the_loss_and_its_derivative_by_the_output(article: Explanation) -> None:
    near(article.loss, LOSS)
    near(article.visit("linear").cotangent, BY_Y)


@pytest.mark.parametrize("path", GRADIENTS)
def test_gradients_coming_back(article: Explanation, path: str) -> None:
    near(article.gradients[path], GRADIENTS[path])
    near(article.visit(path).cotangent, GRADIENTS[path])


def test_local_derivatives(article: Explanation) -> None:
    (edge,) = article.edges_from("sigmoid")
    near(edge.local, [h * (1 - h) for h in H])
    by_h, by_weight, by_bias = article.edges_from("linear")
    near([t.local for t in by_h.terms], [0.4, -0.3])
    near([t.local for t in by_weight.terms], H)
    near([t.local for t in by_bias.terms], [1.0])
    (by_hidden_weight,) = article.edges_from("matmul")
    assert [(t.to, t.at, t.local) for t in by_hidden_weight.terms] == [
        ((0, 0), (0, 0), 0.5), ((0, 1), (0, 1), 0.5), ((1, 0), (0, 0), 0.8), ((1, 1), (0, 1), 0.8)
    ]  # fmt: skip


def test_data_get_no_gradient(article: Explanation) -> None:
    assert article.visit("x").role == "data"
    assert article.visit("x").cotangent is None


@pytest.mark.parametrize("op", ["matmul", "add", "sigmoid", "linear", "mse"])
def test_a_planted_sign_shows_in_the_explained_gradient(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[op]
    flipped = replace(rule, vjp=lambda g, step: [None if c is None else -c for c in rule.vjp(g, step)])
    monkeypatch.setitem(RULES, op, flipped)
    with pytest.raises(AssertionError):
        near(explain(network("article")).gradients["hidden.weight"], GRADIENTS["hidden.weight"])


def added_up(edge: Edge) -> np.ndarray[Any, Any]:
    """What the edge's products add up to."""
    total = np.zeros(edge.sent.shape)
    for term in edge.terms:
        total[term.to] += term.product
    return total


def through(edge: Edge) -> np.ndarray[Any, Any]:
    """Cotangent times local derivative, summed over the copies that broadcasting made."""
    assert edge.local is not None
    assert edge.cotangent is not None
    product = edge.cotangent * edge.local
    while product.ndim > edge.sent.ndim:
        product = product.sum(axis=0)
    repeated = tuple(i for i, n in enumerate(edge.sent.shape) if n != product.shape[i])
    return np.asarray(product.sum(axis=repeated, keepdims=True))


@each_network
def test_the_chain_rule_holds_along_every_edge(name: str) -> None:
    edges = explain(network(name)).edges
    assert any(edge.local is not None for edge in edges)
    for edge in edges:
        scale = float(np.abs(edge.sent).max())
        if edge.terms:
            np.testing.assert_allclose(added_up(edge), edge.sent, rtol=0, atol=DIGITS * scale)
        if edge.local is not None:
            np.testing.assert_allclose(through(edge), edge.sent, rtol=0, atol=DIGITS * scale)


@each_network
def test_what_arrives_is_the_sum_of_what_was_sent(name: str) -> None:
    explanation = explain(network(name))
    for visit in explanation.visits:
        if visit.received and visit.cotangent is not None:
            total = sum(edge.sent for edge in visit.received)
            np.testing.assert_allclose(visit.cotangent, total, rtol=DIGITS, atol=1e-15)


@each_network
def test_the_gradients_are_those_of_the_interpreter(name: str) -> None:
    problem, interpreter = network(name, seed=3), registry.interpreter()
    expected = interpreter.backward(interpreter.forward(problem.graph, problem.leaves), problem.differentiated)
    found = explain(problem).gradients
    assert list(found) == [path for path in problem.differentiated if path in expected]
    for path, gradient in found.items():
        np.testing.assert_array_equal(gradient, expected[path])


@each_network
def test_the_problem_is_left_as_it_was(name: str) -> None:
    problem = network(name)
    before = {path: array.copy() for path, array in problem.leaves.items()}
    explain(problem, rate=0.5)
    for path, array in problem.leaves.items():
        np.testing.assert_array_equal(array, before[path])


def test_a_broadcast_operand_shows_each_copys_own_derivative() -> None:
    """Pulled back without being repeated, both copies would show the sum."""

    def loss(params: Any, batch: Any) -> Value:
        return ops.sum(params["w"] * batch["x"])

    explanation = explain(Problem("loss", loss, {"w": np.array([2.0])}, {"x": np.array([3.0, 5.0])}))
    (edge,) = explanation.edges_from("multiply")
    near(edge.local, [3.0, 5.0])
    near([t.product for t in edge.terms], [3.0, 5.0])
    near(edge.sent, 8.0)


def test_names_stay_apart_when_a_leaf_is_called_like_an_op() -> None:

    def loss(params: Any, batch: Any) -> Value:
        return ops.sum(params["tanh"] * ops.tanh(params["tanh"]))

    explanation = explain(Problem("loss", loss, {"tanh": np.array([1.0])}, {}))
    assert [v.name for v in explanation.visits] == ["tanh", "tanh#1", "multiply", "sum"]
    assert len(explanation.visit("tanh").received) == 2


def test_a_step_goes_downhill_as_predicted(article: Explanation) -> None:
    descent = article.descent
    assert descent is not None
    assert descent.after < descent.before == article.loss
    assert descent.predicted == pytest.approx(-0.1 * sum(np.sum(np.square(g)) for g in GRADIENTS.values()))
    near(descent.new["output.bias"], 0.05 + 0.1 * 0.8987331965625572)


@each_network
def test_the_prediction_is_of_first_order(name: str) -> None:
    """A tenth of the rate leaves a hundredth of what the prediction misses, at rates that foretell 1e-3 and 1e-4."""
    problem = network(name)
    slope = sum(float(np.sum(g * g)) for g in explain(problem).gradients.values())
    misses = []
    for promised in (1e-3, 1e-4):
        descent = explain(problem, rate=promised / slope).descent
        assert descent is not None
        assert descent.predicted == pytest.approx(-promised)
        assert descent.change < 0
        misses.append(descent.change - descent.predicted)
    assert misses[0] / misses[1] == pytest.approx(100, rel=0.2)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_step_needs_a_positive_rate(rate: float) -> None:
    with pytest.raises(GradwitnessError, match="must be positive and finite"):
        explain(network("article"), rate=rate)


def test_every_op_has_words() -> None:
    """By its family, so that a new op needs no entry; and no entry speaks of an op or operand that is not there."""
    assert {op.family for op in OPS.values()} == set(FAMILY_WORDS)
    assert all(operand in OPS[op].operand_names for op, operand in WORDS)
    assert words("linear", "weight") == WORDS["linear", "weight"]
    assert words("tanh", "x") == FAMILY_WORDS["elementwise"]
