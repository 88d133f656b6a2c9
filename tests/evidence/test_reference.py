"""The gradient at 256 bits: every op and network validated, and a wrong rule refused by the tensor's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flint import ctx

from gradwitness import ops
from gradwitness.evidence.reference import reference
from gradwitness.networks import NETWORKS, network
from gradwitness.networks.single_ops import op_problems
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter
from gradwitness_numpy.balls import Balls
from gradwitness_numpy.rules import RULES

PROBLEMS = {p.name: p for p in op_problems()}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_op_is_validated(name: str, interpreter: Interpreter) -> None:
    assert not reference(interpreter, PROBLEMS[name], seed=[0]).refused


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_value_of_an_op_compares_as_a_ball(name: str, interpreter: Interpreter) -> None:
    """A plain array of balls would call two that overlap unequal, and pass over a branch that is undecided."""
    problem = PROBLEMS[name]
    with interpreter.extended(256) as wide:
        tape = wide.forward(problem.graph, {path: wide.numbers(x) for path, x in problem.leaves.items()})
        outputs = [step.output for step in tape.steps.values()]
    parts = [part for y in outputs for part in (y if isinstance(y, tuple) else (y,))]
    objects = [part for part in parts if getattr(part, "dtype", np.dtype(float)).kind == "O"]
    assert all(isinstance(part, Balls) for part in objects)


def test_pooling_of_convolutions_near_zero(interpreter: Interpreter) -> None:
    """Their sums take more than 256 bits, so the windows hold balls that are not exact."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 2, 3, 3)), "b": 2.0**-40 * rng.normal(size=3)}
    batch = {"x": rng.normal(size=(2, 2, 6, 6)) * 2.0**-60 / 3, "c": rng.normal(size=(2, 3, 3, 3))}

    def loss(p: Any, b: Any) -> Any:
        hidden = ops.leaky_relu(ops.conv2d(b["x"], p["w"] * p["w"] / 3.0, p["b"] / 7.0, padding=1))
        return (ops.max_pool2d(hidden, kernel_size=2) * b["c"]).sum()

    assert not reference(interpreter, Problem("near zero", loss, params, batch), seed=[0]).refused


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_validated(name: str, dtype: str, interpreter: Interpreter) -> None:
    problem = network(name).rounded(dtype)
    found = reference(interpreter, problem, seed=[0])
    assert not found.refused
    narrow = interpreter.backward(interpreter.forward(problem.graph, problem.leaves), problem.differentiated)
    for path, gradient in narrow.items():
        error = found.gradients[path].error_of(gradient)
        assert 0 < np.max(np.abs(error)) <= 1e-12 * max(np.max(np.abs(gradient)), 1e-3)


def test_high_and_low_parts_hold_twice_the_digits(interpreter: Interpreter) -> None:
    """d/dx of x^3 is 3 x^2, which at x = 1 + 2^-40 takes 81 digits of 2."""
    x = 1 + 2.0**-40
    found = reference(
        interpreter, Problem("cube", lambda p, b: (p["x"] * p["x"] * p["x"]).sum(), {"x": np.array([x])}, {}), seed=[0]
    )
    high, low = found.gradients["x"].high[0], found.gradients["x"].low[0]
    assert high == 3 * x * x
    assert low == 3 * 2.0**-80
    assert found.gradients["x"].error_of(np.array([high]))[0] == -low


FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "a factor": ("tanh", lambda g, step, right: [(whole := right(g, step)[0]) + whole * 1e-25]),
    "one coordinate": ("tanh", lambda g, step, right: [_nudged(right(g, step)[0])]),
}


def _nudged(cotangent: Any) -> Any:
    nudged = cotangent.copy()
    nudged[0, 0] = nudged[0, 0] * 1.001
    return nudged


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_rule_is_refused_with_the_names_of_the_tensors(
    fault: str, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, wrong = FAULTS[fault]
    right = RULES[op].vjp
    monkeypatch.setitem(RULES, op, replace(RULES[op], vjp=lambda g, step: wrong(g, step, right)))
    refused = reference(interpreter, network("mlp"), seed=[0]).refused
    assert "layers.0.weight" in refused
    assert "layers.3.weight" not in refused  # it lies behind the last tanh
    assert refused["layers.0.weight"].startswith("256-bit differences of the forward pass refute it: off by ")


def test_a_kink_is_refused(interpreter: Interpreter) -> None:
    problem = Problem("kink", lambda p, b: (ops.relu(p["x"]) * p["w"]).sum(), {"x": np.zeros(3), "w": np.ones(3)}, {})
    refused = reference(interpreter, problem, seed=[0]).refused
    assert list(refused) == ["x"]


def test_a_branch_that_cannot_be_decided_leaves_no_reference(interpreter: Interpreter) -> None:
    def loss(p: Any, b: Any) -> Any:
        third = p["x"] / 3.0
        return ops.relu(third + third + third - p["x"]).sum()

    with pytest.raises(ArithmeticError, match="undecided branch"):
        reference(interpreter, Problem("straddled", loss, {"x": np.ones(2)}, {}), seed=[0])


def test_a_loss_that_is_not_finite_leaves_no_reference(interpreter: Interpreter) -> None:
    problem = Problem("log", lambda p, b: ops.log(p["x"]).sum(), {"x": np.array([0.0, 1.0])}, {})
    with pytest.raises(ArithmeticError, match="the loss is"):
        reference(interpreter, problem, seed=[0])


def test_a_leaf_without_a_path_has_a_gradient_of_zeros(interpreter: Interpreter) -> None:
    problem = Problem("apart", lambda p, b: p["x"].sum(), {"x": np.ones(2), "y": np.ones(3)}, {})
    found = reference(interpreter, problem, seed=[0])
    assert not found.refused
    assert found.gradients["y"].high.tolist() == [0, 0, 0]


def test_a_harmless_tie_is_validated(interpreter: Interpreter) -> None:
    """Behind a batch norm, equal pixels give balls that overlap: the maximum over them is still differentiable."""
    assert not reference(interpreter, network("convnet"), seed=[0]).refused
    assert ctx.prec == 53
