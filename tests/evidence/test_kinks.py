"""Kinks: what a choice of local slopes explains is `convention`, what none explains is `disagree`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops, registry, tree
from gradwitness.evidence.local_slopes import local_slopes
from gradwitness.networks.data import CLASSES, digits
from gradwitness.networks.initial import dense, generator, weight
from gradwitness.networks.perceptron import mlp
from gradwitness.networks.single_ops import op_problems
from gradwitness.ops import OPS, Value
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Interpreter
from gradwitness.report import Report, Row
from gradwitness.run.problems import verify_problem
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness_numpy.rules import RULES

BACKENDS = ("numpy", "torch", "jax")
Array = np.ndarray[Any, Any]
Gradient = dict[str, Array]


def of_x(function: Callable[[Value], Value], *x: float) -> Problem:
    """The sum of a function of x, times a number that no slope is."""
    return Problem("kink", lambda p, b: function(p["x"]).sum() * 1.25, {"x": np.array(x)}, {})


def root(x: Value) -> Value:
    return ops.where(x > 0.0, ops.sqrt(x), 0.0)


def corner(x: Value) -> Value:
    """The maximum of one of four windows: the others do not fit."""
    return ops.max_pool2d(x.reshape((1, 1, 3, 3)), kernel_size=2)


# op at its kink: the problem, and the verdicts on numpy, torch and jax
KINKS: dict[str, tuple[Problem, tuple[str, str, str]]] = {
    "abs at 0": (of_x(ops.abs, 0.0, 1.5, -2.0), ("agree", "agree", "convention")),
    "clip from below at 0": (of_x(lambda x: ops.clip(x, min=0.0), 0.0, 1.5), ("agree", "agree", "convention")),
    "clip at 1": (of_x(lambda x: ops.clip(x, min=0.0, max=1.0), 1.0, 0.5), ("agree", "agree", "convention")),
    "hardtanh at 1": (of_x(ops.hardtanh, 1.0, 0.5), ("agree", "agree", "convention")),
    "leaky_relu at 0": (of_x(ops.leaky_relu, 0.0, 0.5), ("agree", "agree", "convention")),
    "elu with alpha at 0": (of_x(lambda x: ops.elu(x, alpha=0.7), 0.0, 0.5), ("agree", "agree", "agree")),
    "max at a tie": (of_x(lambda x: ops.max(x, axis=0), 1.0, 1.0, 0.0), ("agree", "agree", "agree")),
    "max_pool2d at a tie": (of_x(corner, 0.5, 0.5, 0.0, 0.3, 0.1, 0.0, 1.0, 0.0, 0.0), ("agree", "agree", "agree")),
    "2-norm at 0": (of_x(lambda x: ops.norm(x, axis=0), 0.0, 0.0), ("agree", "agree", "nonfinite")),
    "1-norm at 0": (of_x(lambda x: ops.norm(x, axis=0, ord=1), 0.0, 0.5), ("agree", "agree", "convention")),
    "std of a constant": (of_x(lambda x: ops.std(x, axis=0), 1.0, 1.0), ("agree", "agree", "nonfinite")),
    "x**0 at 0": (of_x(lambda x: x**0.0, 0.0, 1.0), ("agree", "agree", "nonfinite")),
    "relu at 0": (of_x(ops.relu, 0.0, 1.0), ("agree", "agree", "agree")),
    "maximum at a tie": (of_x(lambda x: ops.maximum(x, 0.0), 0.0, 1.0), ("agree", "agree", "agree")),
    "where around a root": (of_x(root, 0.0, 1.0), ("nonfinite", "nonfinite", "nonfinite")),
}
AT_A_KINK = set(KINKS) - {"x**0 at 0", "where around a root", "elu with alpha at 0"}


def verify(problem: Problem, **options: Any) -> Report:
    return gw.verify(problem, **({"backends": BACKENDS, "dtypes": ("float64", "float32")} | options))


@pytest.mark.parametrize("reference", ["extended", "differences"])
@pytest.mark.parametrize("name", KINKS)
def test_each_framework_at_each_kink(name: str, reference: str) -> None:
    problem, expected = KINKS[name]
    report = verify(problem, reference=reference)
    found = {(row.dtype, row.backend): str(row.verdict) for row in report.rows}
    assert found == {(d, b): v for d in ("float64", "float32") for b, v in zip(BACKENDS, expected, strict=True)}


def test_differences_alone_confirm_a_gradient_of_zeros_and_refute_any_other() -> None:
    """x**0 is 1 wherever it is taken."""
    problem = KINKS["x**0 at 0"][0]
    assert {str(row.verdict) for row in verify(problem, reference="differences", backends="numpy").rows} == {"agree"}

    def wrong(p: Gradient, b: Gradient) -> tuple[float, Gradient]:
        return 2.5, {"x": np.array([0.0, 1e-3])}

    report = verify(
        problem,
        reference="differences",
        backends=None,
        dtypes=("float64",),
        candidates={"mine": Candidate("numpy", value_and_gradient=wrong)},
    )
    assert {str(row.verdict) for row in report.rows if row.candidate == "mine"} == {"disagree"}


@pytest.mark.parametrize("name", sorted(AT_A_KINK))
def test_agreement_at_a_kink_is_said_to_be_one_of_conventions(name: str) -> None:
    rows = verify(KINKS[name][0], backends="numpy").rows
    assert all("judged at a kink, by the reference's convention" in row.message for row in rows)
    assert all(row.fd_error is None for row in rows)  # their mean of both sides is no evidence
    assert all(row.left is not None and row.right is not None and row.left != row.right for row in rows)


def test_the_message_names_op_place_slopes_and_both_derivatives() -> None:
    (row,) = verify(KINKS["abs at 0"][0], backends="jax", dtypes="float64").rows
    assert row.message.startswith("at a kink: abs at 0 (test_kinks.py:")
    assert "(1 unit) takes slope 1 where the reference takes slope 0; " in row.message
    assert row.message.endswith("; one-sided derivatives of the loss -1.25 and 1.25 at [0]")
    assert row.left == pytest.approx(-1.25)
    assert row.right == pytest.approx(1.25)


def test_a_convention_is_accepted_but_is_no_agreement() -> None:
    """All of jax's rows are conventions here: with nothing else that agreed, a run has verified nothing."""
    report = verify(KINKS["abs at 0"][0])
    assert report
    assert not report.failures()
    alone = verify(KINKS["abs at 0"][0], backends="jax")
    assert {str(row.verdict) for row in alone.rows} == {"convention"}
    assert alone.failures() == ("nothing agreed: a run that verified nothing is not green",)


def test_the_table_says_what_was_judged_at_a_kink() -> None:
    shown = verify(KINKS["abs at 0"][0], dtypes="float64").table()
    assert "kink float64 jax x: convention: at a kink: abs at 0" in shown
    assert "2 that agree: judged at a kink, by the reference's convention (abs at 0" in shown
    assert "no reference in 256 bits" not in shown


def test_of_units_that_keep_their_slope_nothing_is_said() -> None:
    """A 1-norm is one unit of all its elements: that of 0.5 has slope 1 in any framework."""
    (row,) = verify(KINKS["1-norm at 0"][0], backends="jax", dtypes="float64").rows
    assert "(1 unit) takes slope 1 where the reference takes slope 0; " in row.message


def test_outside_the_one_sided_derivatives_there_is_a_warning() -> None:
    """relu(x) - relu(-x) is x: its derivative at 0 is 1, and every framework says 0."""
    report = verify(of_x(lambda x: ops.relu(x) - ops.relu(-x), 0.0, 1.0))
    assert {str(row.verdict) for row in report.rows} == {"convention"}
    warning = "WARNING: 0 is outside the one-sided derivatives of the loss 1.25 and 1.25"
    assert all(warning in row.message for row in report.rows)


def test_two_forms_of_gelu_are_two_losses() -> None:
    problem = of_x(lambda x: ops.gelu(x), 1.0, -0.5)
    other = of_x(lambda x: ops.gelu(x, approximate="tanh"), 1.0, -0.5)
    candidates = {"torch": Candidate("torch", other.graph), "jax": Candidate("jax", other.graph)}
    rows = verify_problem(problem, candidates, Settings(dtypes=("float64",)))
    assert {str(row.verdict) for row in rows} == {"different-loss"}


def by_hand(problem: Problem, gradient: Gradient, dtype: str = "float64", reference: str = "extended") -> Sequence[Row]:
    """Rows of a gradient that is given, beside the loss as NumPy computes it."""
    interpreter = registry.interpreter()

    def value_and_gradient(params: Any, batch: Any) -> tuple[float, Any]:
        leaves = {path: np.asarray(x, np.float64) for path, x in tree.flatten(params, "params").items()}
        loss = interpreter.loss(interpreter.forward(problem.graph, {**problem.leaves, **leaves}))
        return loss, tree.rebuild(problem.params, gradient, "params")

    candidate = Candidate("numpy", value_and_gradient=value_and_gradient)
    return verify_problem(problem, {"mine": candidate}, Settings(dtypes=(dtype,), reference=reference))


# a gradient at a kink, over the 1.25 of the problem, and what is to be said of it
GIVEN: dict[str, tuple[str, list[float], str]] = {
    "a slope of 0.3 of abs": ("abs at 0", [0.3, 1, -1], "convention"),
    "a slope of 1.5 of abs": ("abs at 0", [1.5, 1, -1], "disagree"),
    "wrong beside the kink": ("abs at 0", [1, 1, -0.9], "disagree"),
    "a slope of 1.5 of relu": ("relu at 0", [1.5, 1], "disagree"),
    "a slope of -0.1 of relu": ("relu at 0", [-0.1, 1], "disagree"),
    "a slope of 1 of relu": ("relu at 0", [1, 1], "convention"),
    "the second of a pool's tie": ("max_pool2d at a tie", [0, 1, 0, 0, 0, 0, 0, 0, 0], "convention"),
    "both of a pool's tie": ("max_pool2d at a tie", [1, 1, 0, 0, 0, 0, 0, 0, 0], "disagree"),
    "the first of a tie": ("max at a tie", [1, 0, 0], "convention"),
    "weights of a tie": ("max at a tie", [0.3, 0.7, 0], "convention"),
    "a tie counted twice": ("max at a tie", [1, 1, 0], "disagree"),
    "a tie that counts for too little": ("max at a tie", [0.4, 0.4, 0], "disagree"),
    "a tie with a negative weight": ("max at a tie", [1.2, -0.2, 0], "disagree"),
    "in the unit ball": ("2-norm at 0", [0.3, -0.6], "convention"),
    "on the unit ball": ("2-norm at 0", [0.6, 0.8], "convention"),
    "outside the unit ball": ("2-norm at 0", [1, 1], "disagree"),
    "deviations": ("std of a constant", [0.5, -0.5], "convention"),
    "deviations that do not add up to 0": ("std of a constant", [0.5, 0.5], "disagree"),
    "NaN": ("2-norm at 0", [np.nan, 0], "nonfinite"),
}


@pytest.mark.parametrize("reference", ["extended", "differences"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_given_gradient_at_a_kink(name: str, dtype: str, reference: str) -> None:
    kink, slopes, verdict = GIVEN[name]
    (row,) = by_hand(KINKS[kink][0], {"x": 1.25 * np.array(slopes)}, dtype, reference)
    assert str(row.verdict) == verdict, row.message
    if verdict == "disagree":
        assert "no choice of slopes at its kinks" in row.message


RELU = RULES["relu"]


@pytest.mark.parametrize("slope", [1.5, -0.25])
def test_a_rule_of_the_referee_that_is_wrong_at_the_kink_alone(slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(RELU, vjp=lambda g, step: (g * np.where(step.operands[0] == 0, slope, step.operands[0] > 0),))
    monkeypatch.setitem(RULES, "relu", wrong)
    found = {row.backend: str(row.verdict) for row in verify(KINKS["relu at 0"][0]).rows}
    assert found == {"numpy": "disagree", "torch": "agree", "jax": "agree"}


def test_a_rule_of_the_referee_that_is_wrong_beside_the_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(RELU, vjp=lambda g, step: (g * (step.operands[0] > 0) * 1.001,))
    monkeypatch.setitem(RULES, "relu", wrong)
    for reference in ("extended", "differences"):
        rows = verify(KINKS["relu at 0"][0], reference=reference).rows
        assert {str(r.verdict) for r in rows if r.backend == "numpy"} == {"disagree"}
        assert {str(r.verdict) for r in rows if r.backend != "numpy"} <= {"agree", "inconclusive"}


ON_A_GRID = [-1.0, -0.4, -0.3, 0.0, 0.5, 0.6, 0.8, 1.0]  # the bounds of the samples of clip and hardtanh among them
WITH_KINKS = [p for p in op_problems() if (kink := OPS[p.name.partition(".")[0]].kink) and kink.kind != "smooth"]


def on_a_grid(problem: Problem) -> Problem:
    """The same problem where operands take few values (for std but one), so that kinks and ties abound."""
    rng = np.random.default_rng(1)
    values = [1.0] if problem.name == "std.x" else ON_A_GRID
    floats = {path: x for path, x in problem.leaves.items() if x.dtype.kind == "f" and "cotangent" not in path}
    return problem.at({path: rng.choice(values, x.shape) for path, x in floats.items()})


@pytest.mark.parametrize("problem", WITH_KINKS, ids=lambda problem: problem.name)
def test_the_vocabularys_own_slopes_are_those_of_the_rules(problem: Problem, interpreter: Interpreter) -> None:
    problem = on_a_grid(problem)
    slopes = local_slopes(interpreter, problem, "float64", seed=[0])
    found = interpreter.backward(interpreter.forward(problem.graph, problem.leaves), problem.differentiated)
    own = slopes.gradient(slopes.start)
    for path, gradient in found.items():
        np.testing.assert_allclose(own[path], gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("problem", WITH_KINKS, ids=lambda problem: problem.name)
def test_every_op_at_its_kinks_in_every_framework(problem: Problem) -> None:
    report = verify(on_a_grid(problem))
    accepted = {"agree", "convention"} | ({"nonfinite"} if problem.name in ("norm.x", "std.x") else set())
    assert {str(row.verdict) for row in report.rows} <= accepted, repr(report)
    assert any("kink" in row.message for row in report.rows)


def test_what_no_slope_reaches_is_judged_as_ever() -> None:
    """Both parameters meet a unit at its kink, and the gradient of one does not depend on the slope there."""
    problem = Problem("apart", lambda p, b: (ops.relu(p["x"]) * p["w"]).sum(), {"x": np.zeros(3), "w": np.ones(3)}, {})
    messages = {row.parameter: row.message for row in verify(problem, backends="torch", dtypes="float64").rows}
    assert messages["w"] == ""
    assert "judged at a kink" in messages["x"]


def test_a_tie_of_equals_is_none() -> None:
    """Which of two equal functions of a parameter a maximum takes makes no difference."""
    report = verify(of_x(lambda x: ops.maximum(ops.tanh(x), ops.tanh(x)), 0.3, -0.4))
    assert {(str(row.verdict), row.message) for row in report.rows} == {("agree", "")}


def layered(seed: int = 0) -> Problem:
    """Two layers of ReLU over data that put some units of both at 0."""
    rng = np.random.default_rng(seed)
    x = np.array([[0.0, 0.0], [0.5, -1.25], [1.0, 0.75]])
    params = {"w": rng.normal(size=(2, 3)), "c": np.zeros(3), "v": rng.normal(size=(3, 2)), "b": np.zeros(2)}

    def loss(p: Any, b: Any) -> Value:
        hidden = ops.relu(b["x"] @ p["w"] + p["c"])
        return ops.tanh(ops.relu(hidden @ p["v"] + p["b"]) - 0.3).sum()

    return Problem("layered", loss, params, {"x": x})


def test_slopes_of_two_layers_are_found_one_by_one(interpreter: Interpreter) -> None:
    """Gradients are affine in the slopes of each layer; a choice that differs from unit to unit is found again."""
    problem = layered()
    slopes = local_slopes(interpreter, problem, "float64", seed=[0])
    rng = np.random.default_rng(1)
    choice = tuple(rng.uniform(0.1, 0.9, k.unit.size) for k in slopes.kinked)
    assert [k.units for k in slopes.kinked] == [3, 2]
    gradient = slopes.gradient(choice)
    rows = {row.parameter: row for row in by_hand(problem, gradient)}
    assert str(rows["b"].verdict) == "convention", rows["b"].message
    assert str(rows["w"].verdict) == "agree"
    off = {**gradient, "b": gradient["b"] + np.array([0.0, 3.0])}
    assert {row.parameter: str(row.verdict) for row in by_hand(problem, off)}["b"] == "disagree"


def test_a_unit_within_rounding_of_its_kink_may_be_on_either_side() -> None:
    """In truth a b is more than its float32, so that the ReLU is on; in float32 both are one, and it is off."""
    a, b = (np.float64(np.float32(x)) for x in (1.1, 1.3))
    c = np.float64(np.float32(a * b)) if np.float32(a * b) < a * b else np.nextafter(np.float32(a * b), np.float32(0))
    problem = Problem(
        "beside", lambda p, d: (ops.relu(p["a"] * p["b"] - p["c"]) * 3.0 + p["a"]).sum(), {
            "a": np.array([a, 0.7]), "b": np.array([b, 2.0]), "c": np.array([c, 0.3])}, {}
    )  # fmt: skip
    rows = verify(problem, dtypes="float32").rows
    assert {str(row.verdict) for row in rows} <= {"agree", "convention"}, [r.message for r in rows]
    off = {"a": np.array([1 + 3 * b, 7.0]), "b": np.array([3 * a, 2.1]), "c": np.array([-3.0, -3.0])}
    beside = {**off, "a": np.array([1.0, 7.0])}
    wrong = {**off, "a": np.array([1 + 1.5 * b, 7.3])}
    first = {name: by_hand(problem, g, "float32")[0] for name, g in (("on", off), ("off", beside), ("wrong", wrong))}
    assert {name: str(row.verdict) for name, row in first.items()} == {
        "on": "agree", "off": "convention", "wrong": "disagree"}, {n: r.message for n, r in first.items()}  # fmt: skip


def zero_bias_convnet(seed: int, activation: Callable[[Value], Value]) -> Problem:
    """Two convolutions with zero biases on the digit images: their backgrounds sit at the kink, and tie in pooling."""
    rng = generator("zero_bias_convnet", seed)
    params = {
        "first": {"weight": weight(rng, 4, 1, 3, 3, gain=2.0), "bias": np.zeros(4)},
        "second": {"weight": weight(rng, 6, 4, 3, 3, gain=1.5), "bias": np.zeros(6)},
        "output": {"weight": dense(rng, 24, CLASSES)["weight"], "bias": np.zeros(CLASSES)},
    }
    images, labels = digits(5)

    def loss(p: Any, b: Any) -> Value:
        x = ops.max_pool2d(activation(ops.conv2d(b["images"], **p["first"], padding=1)), kernel_size=2)
        x = ops.max_pool2d(activation(ops.conv2d(x, **p["second"], padding=1)), kernel_size=2)
        logits = ops.linear(x.reshape(x.shape[0], -1), **p["output"])
        return ops.cross_entropy(logits, b["labels"], reduction="mean")

    return Problem("zero_bias_convnet", loss, params, {"images": images[:, None], "labels": labels})


@pytest.mark.parametrize("seed", range(3))
def test_a_convnet_whose_backgrounds_are_at_the_kink_raises_no_false_alarm(seed: int) -> None:
    report = verify(zero_bias_convnet(seed, ops.relu))
    assert report
    assert {str(row.verdict) for row in report.rows} == {"agree"}


def test_where_backends_take_other_slopes_it_is_convention() -> None:
    report = verify(zero_bias_convnet(0, ops.leaky_relu))
    assert report
    differ = {(row.backend, row.parameter) for row in report.rows if str(row.verdict) == "convention"}
    assert differ == {("jax", "first.bias")}
    assert {str(row.verdict) for row in report.rows} == {"agree", "convention"}


def test_a_fault_in_that_convnet_is_caught() -> None:
    problem = zero_bias_convnet(0, ops.relu)
    right = verify(problem, backends="numpy", dtypes="float64")
    assert right
    interpreter = registry.interpreter()
    gradient = interpreter.backward(interpreter.forward(problem.graph, problem.leaves), problem.differentiated)
    gradient["first.weight"] = 1.001 * gradient["first.weight"]
    gradient["second.bias"] = 1.001 * gradient["second.bias"]
    found = {row.parameter: str(row.verdict) for row in by_hand(problem, gradient)}
    assert {path for path, verdict in found.items() if verdict == "disagree"} == {"first.weight", "second.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_relu_network_of_a_million_parameters_raises_no_false_alarm(seed: int) -> None:
    problem = mlp(batch=32, features=400, width=750, depth=3, outputs=10, activation="relu", seed=seed)
    assert sum(x.size for x in problem.primals.values()) > 1_000_000
    report = verify(problem, backends=("torch", "jax"), dtypes="float32", reference="differences")
    assert report
    assert {str(row.verdict) for row in report.rows} <= {"agree", "convention"}


def test_a_tie_that_moves_little_in_bfloat16_is_still_a_kink_to_differences() -> None:
    """They are taken in float64, and would refute what the tie shares out by half."""
    batch = {"x": np.array([0.5, 1.0, 2.0, -1.0, -2.0, 0.25]), "w": np.array([0.25, -0.7, 2.0, 1.1, 0.9, 2.2])}
    problem = Problem("tie", lambda p, b: ops.sum(ops.minimum(b["x"], p["y"]) * b["w"]), {"y": np.array([0.5])}, batch)
    assert graph_referee(problem, "bfloat16", Settings(dtypes=("bfloat16",))).kinked == {"y": ""}
