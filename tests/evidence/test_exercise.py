"""A slope that is wrong in one region of an op is caught where the batch reaches it; elsewhere the report says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops, registry
from gradwitness.evidence.exercise import Exercise, exercise
from gradwitness.networks import NETWORKS, network
from gradwitness.networks.single_ops import op_problems
from gradwitness.ops import OPS, Value
from gradwitness.problem import Problem
from gradwitness.report.document import schema
from gradwitness_numpy.rules import RULES
from gradwitness_torch.functions import FUNCTIONS

Array = np.ndarray[Any, Any]
Function = Callable[[Value, Array], Value]


def of_x(function: Function, *x: float) -> Problem:
    """A loss of x that weighs every element of the function differently; it is given x also as numbers."""
    values = np.array(x)

    def loss(params: Any, batch: Any) -> Value:
        y = function(params["x"], values)
        total: Value = (y * np.arange(1.0, y.size + 1).reshape(y.shape)).sum()
        return total

    return Problem("loss", loss, {"x": values}, {})


def exercised(function: Function, *x: float) -> tuple[Exercise, ...]:
    return exercise(registry.interpreter(), of_x(function, *x))


def attention(x: Value, values: Array) -> Value:
    keys = x.reshape((1, 1, -1, 1))
    return ops.scaled_dot_product_attention(np.ones((1, 1, 2, 1)), keys, keys * 2.0, values > 0)


def cross_entropy(x: Value, values: Array) -> Value:
    logits, labels = ops.stack([x, x * 2.0], axis=1), (values > 0).astype(int)
    return ops.cross_entropy(logits, labels, ignore_index=1, reduction="sum")


TAILS = {"below -3": -3.5, "between -3 and 3": 0.5, "above 3": 3.5}
SIGNS = {"below 0": -1.5, "above 0": 1.5}
LARGER = {"with x below y": -1.0, "with x above y": 2.0}

# each op with regions: an example, and a value in each region
REGIONS: dict[str, tuple[Function, dict[str, float]]] = {
    "tanh": (lambda x, _: ops.tanh(x), TAILS),
    "sigmoid": (lambda x, _: ops.sigmoid(x), TAILS),
    "erf": (lambda x, _: ops.erf(x), TAILS),
    "silu": (lambda x, _: ops.silu(x), TAILS),
    "softplus": (lambda x, _: ops.softplus(x), TAILS),
    "gelu": (lambda x, _: ops.gelu(x), TAILS),
    "expm1": (lambda x, _: ops.expm1(x), {"below -3": -4.0, "above -3": 1.0}),
    "elu": (lambda x, _: ops.elu(x), {"below -3": -4.0, "between -3 and 0": -1.0, "above 0": 1.0}),
    "relu": (lambda x, _: ops.relu(x), SIGNS),
    "leaky_relu": (lambda x, _: ops.leaky_relu(x), SIGNS),
    "abs": (lambda x, _: ops.abs(x), SIGNS),
    "hardtanh": (lambda x, _: ops.hardtanh(x), {"below -1": -2.0, "between -1 and 1": 0.5, "above 1": 2.0}),
    "clip": (lambda x, _: ops.clip(x, max=0.5), {"below 0.5": 0.2, "above 0.5": 0.7}),
    "maximum": (lambda x, _: ops.maximum(x, 0.5), LARGER),
    "minimum": (lambda x, _: ops.minimum(x, x * 2.0), {"with x below y": 1.0, "with x above y": -1.0}),
    "where": (lambda x, _: ops.where(x > 0.5, x * 2.0, x), {"on false": 0.1, "on true": 1.0}),
    "dropout": (lambda x, v: ops.dropout(x, v > 0, p=0.5), {"at what is dropped": -1.0, "at what is kept": 1.0}),
    "scaled_dot_product_attention": (attention, {"at a masked position": -1.0, "at one that is not masked": 1.0}),
    "cross_entropy": (cross_entropy, {"with a label that counts": -1.0, "with an ignored label": 1.0}),
    "binary_cross_entropy_with_logits": (
        lambda x, v: ops.binary_cross_entropy_with_logits(x, np.full(v.shape, 0.5), reduction="sum"),
        TAILS,
    ),
    "huber": (
        lambda x, v: ops.huber(x, np.full(v.shape, 1.0), delta=0.5, reduction="sum"),
        {"with an error below -0.5": 0.0, "with an error between -0.5 and 0.5": 1.1, "with an error above 0.5": 2.0},
    ),
}


def test_every_op_with_regions_is_here() -> None:
    assert set(REGIONS) == {name for name, op in OPS.items() if op.regions is not None}


@pytest.mark.parametrize("op", REGIONS)
def test_all_regions_reached(op: str) -> None:
    function, values = REGIONS[op]
    (found,) = exercised(function, *values.values())
    assert (found.op, found.reached, found.missed) == (op, tuple(values), ())
    assert (found.arrives, found.passes) == (True, True)


@pytest.mark.parametrize(("op", "region"), [(op, region) for op in REGIONS for region in REGIONS[op][1]])
def test_one_region_missed(op: str, region: str) -> None:
    function, values = REGIONS[op]
    (found,) = exercised(function, *(x for name, x in values.items() if name != region))
    assert found.missed == (region,)


def test_the_inputs_reach_from_the_lowest_to_the_highest() -> None:
    (found,) = exercised(lambda x, _: ops.tanh(x), 0.5, -2.0, 4.0)
    assert (found.lowest, found.highest) == (-2.0, 4.0)
    assert found.line.startswith("test_exercise.py:")
    (found,) = exercised(lambda x, _: ops.maximum(x, 0.0), 0.5)
    assert (found.lowest, found.highest) == (None, None)


def test_a_unit_at_which_no_cotangent_arrives_exercises_nothing() -> None:
    """Any slope times zero is right."""
    (found,) = exercised(lambda x, v: ops.tanh(x) * np.where(v < -3, 0.0, 1.0), -4.0, 0.5, 4.0)
    assert found.missed == ("below -3",)
    assert found.lowest == 0.5


def test_behind_a_stop_gradient_there_is_nothing_to_exercise() -> None:
    assert exercised(lambda x, _: ops.stop_gradient(ops.relu(x)) * x, -1.0, 1.0) == ()


def test_at_its_bend_a_unit_is_on_neither_side() -> None:
    (found,) = exercised(lambda x, _: ops.relu(x), 0.0)
    assert found.missed == ("below 0", "above 0")


def test_infinity_is_no_obstacle() -> None:
    (found,) = exercised(lambda x, v: ops.maximum(x, np.full(v.shape, -np.inf)), 1.0)
    assert found.missed == ("with x below y",)


def test_a_recurrent_cell_is_looked_into_and_a_loss_is_not() -> None:
    found = exercise(registry.interpreter(), network("lstm"))
    assert {one.op for one in found} == {"sigmoid", "tanh"}
    assert all(one.line.startswith("recurrent.py:") for one in found)
    assert exercised(lambda x, _: ops.cross_entropy(x.reshape((1, 2)), np.array([1]), reduction="sum"), 1.0, 2.0) == ()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_zoo(name: str) -> None:
    """No call is dead; and some regions are reached of each."""
    found = exercise(registry.interpreter(), network(name))
    assert all(one.arrives and one.passes and one.reached for one in found)


def test_the_problems_of_single_ops() -> None:
    for problem in op_problems():
        exercise(registry.interpreter(), problem)


class WrongBelow(torch.autograd.Function):
    """tanh with slope 0.5 below -3."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        y = torch.tanh(x)
        context.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(context: Any, *cotangents: Any) -> Any:
        x, y = context.saved_tensors
        return cotangents[0] * torch.where(x < -3, 0.5, 1 - y**2)


def network_of_tanh(lowest: float) -> gw.Report:
    """The verdicts on torch and NumPy where the lowest of tanh's inputs is this."""

    def loss(params: Any, batch: Any) -> Value:
        return ops.mse(ops.tanh(batch["x"] @ params["w"]), batch["y"], reduction="mean", half=False)

    x = np.array([[lowest, 0.0], [0.5, 1.0], [4.0, -1.0]])
    return gw.verify(loss, {"w": np.eye(2)}, {"x": x, "y": np.ones((3, 2))}, backends=["numpy", "torch"])


def test_a_slope_wrong_below_minus_3_is_caught_where_the_batch_reaches_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "tanh", WrongBelow.apply)
    report = network_of_tanh(-3.5)
    assert {row.backend: str(row.verdict) for row in report.rows} == {"numpy": "agree", "torch": "disagree"}
    assert "never exercised" not in report.table()


def test_where_it_does_not_the_report_says_that_this_was_never_exercised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "tanh", WrongBelow.apply)
    report = network_of_tanh(-2.5)
    assert {str(row.verdict) for row in report.rows} == {"agree"}
    assert "\nnever exercised: tanh below -3 (verbose says where)\n" in report.table()
    assert "\nloss: tanh never below -3 (test_exercise.py:" in report.table(verbose=True)
    assert "; from -2.5 to 4)\n" in report.table(verbose=True)


def test_the_same_in_numpy_which_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES["tanh"]

    def vjp(g: Any, step: Any) -> Any:
        return [part if part is None else part + g * (step.operands[0] < -3) for part in rule.vjp(g, step)]

    monkeypatch.setitem(RULES, "tanh", replace(rule, vjp=vjp))
    caught, not_reached = network_of_tanh(-3.5), network_of_tanh(-2.5)
    assert {row.backend: str(row.verdict) for row in caught.rows} == {"numpy": "disagree", "torch": "agree"}
    assert not_reached.ok
    assert "never exercised: tanh below -3" in not_reached.table()


def dead_relu(params: Any, batch: Any) -> Value:
    hidden = ops.relu(ops.tanh(batch["x"] * params["w"]) - 2.0)
    return ops.mse(hidden + params["b"], batch["y"], reduction="mean", half=False)


def test_a_dead_relu_is_said_always_and_what_it_cuts_off() -> None:
    point = {"w": np.ones(3), "b": np.ones(3)}
    report = gw.verify(dead_relu, point, {"x": np.ones(3), "y": np.zeros(3)}, backends="numpy")
    assert report.ok  # zeros are right
    for table in (report.table(), report.table(verbose=True)):
        lines = [line.split(" (")[0] + line.rpartition(")")[2] for line in table.splitlines() if "loss: " in line]
        assert lines[:2] == [
            "loss: relu passes no gradient back, as none arrives above 0: what leads only to it is untested",
            "loss: no gradient arrives at tanh",
        ]
    alive = gw.verify(dead_relu, point, {"x": np.ones(3), "y": np.zeros(3)}, backends="numpy", wrt="b")
    assert "loss: " not in alive.table()  # nobody asked for what lies before the relu


def test_many_networks_take_one_line() -> None:
    one = Exercise("tanh", "net.py:7", ("below -3",), ("above 3",), -4.0, 1.0, arrives=True, passes=True)
    two = replace(one, op="relu", missed=("below 0", "above 0"), reached=())
    other = replace(one, reached=("above 3",), missed=(), line="net.py:8")
    exercises = {"a": (one, two), "b": (one,), "c": (one,), "d": (one, other)}
    report = gw.Report((), {}, exercise=exercises)
    line = "never exercised: tanh above 3 (a, b, 1 more); relu below 0 or above 0 (a) (verbose says where)"
    assert line in report.table()
    assert "a: relu never below 0 (net.py:7; from -4 to 1)" in report.table(verbose=True)
    assert "d: tanh never above 3 at 1 of 2 calls (net.py:7; from -4 to 1)" in report.table(verbose=True)


def test_it_is_in_the_json() -> None:
    report = network_of_tanh(-2.5)
    document = json.loads(report.json())
    jsonschema.validate(document, schema())
    (found,) = document["exercise"]["loss"]
    assert found["line"].startswith("test_exercise.py:")
    assert {key: value for key, value in found.items() if key != "line"} == {
        "op": "tanh",
        "reached": ["between -3 and 3", "above 3"],
        "missed": ["below -3"],
        "lowest": -2.5,
        "highest": 4.0,
        "arrives": True,
        "passes": True,
    }
    del document["exercise"]["loss"][0]["missed"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_of_black_boxes_nothing_is_said() -> None:
    report = gw.verify(gw.Candidate("numpy", lambda p, b: np.maximum(p["x"], 0.0).sum()), {"x": -np.ones(2)})
    assert report.exercise == {}
    assert "exercised" not in report.table()


def test_what_cannot_run_costs_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(g: Any, step: Any) -> Any:
        raise RuntimeError("no rule today")

    monkeypatch.setitem(RULES, "tanh", replace(RULES["tanh"], vjp=failing))
    report = network_of_tanh(0.0)
    assert {str(row.verdict) for row in report.rows} == {"error"}
    assert report.exercise == {}
