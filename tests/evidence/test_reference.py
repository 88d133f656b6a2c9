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
def test_every_value_of_an_op_is_a_ball(name: str, interpreter: Interpreter) -> None:
    """A plain array of balls would call two that overlap unequal, and pass over a branch that is undecided; two floats
    among balls, as a clip left, would add up in 53 bits."""
    problem = PROBLEMS[name]
    with interpreter.extended(256) as wide:
        tape = wide.forward(problem.graph, {path: wide.numbers(x) for path, x in problem.leaves.items()})
        outputs = [step.output for step in tape.steps.values()]
    parts = [part for y in outputs for part in (y if isinstance(y, tuple) else (y,))]
    objects = [part for part in parts if getattr(part, "dtype", np.dtype(float)).kind == "O"]
    assert all(isinstance(part, Balls) for part in objects)
    assert not any(isinstance(number, float) for part in objects for number in np.asarray(part).flat)


def test_bounds_that_a_clip_gives_add_up_in_256_bits(interpreter: Interpreter) -> None:
    params = {"x": np.array([-1.0, 1.1, 1.2, 0.11, 0.07, 0.2, 1.3])}

    def loss(p: Any, b: Any) -> Any:
        return ops.var(ops.clip(p["x"], min=-0.001, max=0.7))

    found = reference(interpreter, Problem("clipped", loss, params, {}), seed=[0])
    assert not found.refused


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


STEEP: dict[str, tuple[Any, list[float]]] = {
    "a pole nearby": (lambda x: 1.0 / x, [0.3, 0.7, 1e-10]),
    "a pole nearer than an epsilon": (lambda x: 1.0 / (x + 1e-14), [0.3, 0.7, 1e-12]),
    "a logarithm near 0": (lambda x: x * ops.log(x + 1e-12), [0.3, 0.7, 0.0]),
    "a root near 0": (ops.sqrt, [0.3, 0.7, 1e-12]),
    "a fast oscillation": (lambda x: ops.sin(x * 1e10), [0.3, 0.7, -1.1]),
    "a jump of the second derivative": (lambda x: ops.relu(x) ** 2 + ops.elu(x), [0.0, 0.0, 1.0]),
    "tiny values": (lambda x: x * x, [3e-200, -1e-200, 2e-200]),
    "tiny values, enlarged": (lambda x: ops.sin(x * 1e300), [3e-305, -1e-305, 2e-305]),
    "a stationary point": (ops.cos, [0.0, 0.0, 0.0]),
    "a power of zero": (lambda x: x**0 * x, [-1.0, -2.0, 0.0]),
    "a large loss beside": (lambda x: ops.tanh(x) + 1e35, [0.3, 0.7, -1.1]),
}


@pytest.mark.parametrize("case", STEEP)
def test_what_is_steep_or_flat_is_validated(case: str, interpreter: Interpreter) -> None:
    function, x = STEEP[case]
    problem = Problem("steep", lambda p, b: function(p["x"]).sum(), {"x": np.array(x)}, {})
    assert not reference(interpreter, problem, seed=[0]).refused


@pytest.mark.parametrize("case", ["tiny values, enlarged", "a large loss beside"])
def test_a_wrong_rule_is_refused_there_too(
    case: str, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, x = STEEP[case]
    op = "sin" if "tiny" in case else "tanh"
    right = RULES[op].vjp
    monkeypatch.setitem(RULES, op, replace(RULES[op], vjp=lambda g, step: [1.001 * c for c in right(g, step)]))
    problem = Problem("steep", lambda p, b: function(p["x"]).sum(), {"x": np.array(x)}, {})
    assert list(reference(interpreter, problem, seed=[0]).refused) == ["x"]


def test_a_vast_derivative_beside_a_small_one_excuses_nothing(
    interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RULES["tanh"].vjp
    monkeypatch.setitem(RULES, "tanh", replace(RULES["tanh"], vjp=lambda g, step: [1.001 * c for c in right(g, step)]))
    params = {"a": np.array([0.3, 0.7]), "b": np.array([0.3, 0.7])}
    problem = Problem("vast", lambda p, b: 1e35 * p["a"].sum() + ops.tanh(p["b"]).sum(), params, {})
    assert list(reference(interpreter, problem, seed=[0]).refused) == ["b"]


def test_a_loss_beyond_float64_leaves_no_reference(interpreter: Interpreter) -> None:
    problem = Problem("exp", lambda p, b: ops.exp(p["x"]).sum(), {"x": np.array([800.0])}, {})
    with pytest.raises(ArithmeticError, match="the loss is inf"):
        reference(interpreter, problem, seed=[0])


@pytest.mark.parametrize("function", [ops.abs, lambda x: ops.maximum(x, 0.0)])
def test_a_slope_that_is_the_mean_of_both_sides_is_refused_at_a_kink(function: Any, interpreter: Interpreter) -> None:
    problem = Problem("kink", lambda p, b: function(p["x"]).sum(), {"x": np.array([0.0, 1.0, 2.0])}, {})
    refused = reference(interpreter, problem, seed=[0]).refused
    assert refused["x"].startswith("it lies at a kink: one-sided derivatives along a direction are ")


def test_a_huber_loss_of_one_number(interpreter: Interpreter) -> None:
    def loss(p: Any, b: Any) -> Any:
        return ops.huber(p["x"], np.array(0.1), reduction="mean", delta=0.3)

    assert not reference(interpreter, Problem("huber", loss, {"x": np.array(0.7)}, {}), seed=[0]).refused


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


def test_what_a_rule_puts_into_an_array_of_its_own_is_still_balls(interpreter: Interpreter) -> None:
    draw = np.random.default_rng(0).normal
    params = {"x": draw(size=(1, 2, 7, 5)), "w": draw(size=(3, 2, 3, 3)), "b": draw(size=3)}

    def loss(p: Any, b: Any) -> Any:
        return ops.sigmoid(ops.conv2d(p["x"], p["w"], p["b"], stride=2, padding=1)).sum()

    assert not reference(interpreter, Problem("convolved", loss, params, {}), seed=[0]).refused
