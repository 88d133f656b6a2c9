"""Derivatives along directions at 256 bits: right, taken as time allows, and none where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.evidence.directional import directional_derivatives
from gradwitness.evidence.effort import Affordable, Effort, affordable_reference, effort
from gradwitness.evidence.finite_difference import Probe, textbook_difference
from gradwitness.evidence.noise_floor import TensorFloor, noise_floor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.perturbed_runs import PerturbedRuns
from gradwitness.evidence.reach import node_reach
from gradwitness.evidence.sight import Sight
from gradwitness.networks import NETWORKS, network
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter
from gradwitness.verdict import Verdict
from gradwitness_numpy.rules import RULES

Params = dict[str, Any]


def refutes(probe: Probe, gradient: np.ndarray, floor: TensorFloor) -> bool:
    """Whether a derivative refutes a gradient beyond what rounding does to that."""
    assert probe.direction is not None
    slack = node_reach(floor).norm * norm(probe.direction * floor.elements)
    return Sight(gradient.size).refuted_by(probe, gradient, slack).refuted is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_they_confirm_every_network_within_its_float64_rounding(name: str, interpreter: Interpreter) -> None:
    problem = network(name)
    graph, wrt = problem.graph, problem.differentiated
    gradients = interpreter.backward(interpreter.forward(graph, problem.leaves), wrt)
    floor = noise_floor(PerturbedRuns(interpreter, graph.decomposed(), problem.leaves, "float64", [0]), wrt)
    for path, probes in directional_derivatives(interpreter, problem, dict.fromkeys(wrt, 1), seed=[0]).items():
        (probe,) = probes
        assert not refutes(probe, gradients[path], floor.tensors[path])
        assert refutes(probe, gradients[path] * (1 + 1e-9) + 1e-12, floor.tensors[path])


def one_leaf(function: Any, x: list[float]) -> Problem:
    return Problem("one leaf", lambda p, b: function(p["x"]).sum(), {"x": np.array(x)}, {})


STEEP: dict[str, tuple[Any, Any, list[float]]] = {
    "a pole nearby": (lambda x: 1.0 / x, lambda x: -1 / x**2, [0.3, 0.7, 1e-10]),
    "an odd function's center": (lambda x: ops.sin(x * 2.0**90), lambda x: 2.0**90 * np.cos(x), [0.0, 0.0, 0.0]),
    "a jump of the second derivative": (lambda x: ops.relu(x) ** 2 + ops.elu(x), lambda x: x**0 + 2 * x, [0.0, 1.0]),
    "a stationary point": (ops.cos, lambda x: -np.sin(x), [0.0, 0.0]),
    "a line": (lambda x: x, lambda x: x**0, [0.1, 0.2, 0.3]),
    "a large loss beside": (lambda x: ops.tanh(x) + 1e20, lambda x: 1 / np.cosh(x) ** 2, [0.3, 0.7, -1.1]),
}


@pytest.mark.parametrize("case", STEEP)
def test_what_is_steep_or_flat_is_no_kink(case: str, interpreter: Interpreter) -> None:
    function, derivative, x = STEEP[case]
    probes = directional_derivatives(interpreter, one_leaf(function, x), {"x": 3}, seed=[0])["x"]
    gradient = derivative(np.array(x))
    assert len(probes) == 3
    for probe in probes:
        assert abs(probe.of(gradient) - probe.value) <= probe.bound <= 1e-14 * np.linalg.norm(gradient) + 1e-30


@pytest.mark.parametrize("function", [ops.relu, ops.abs, lambda x: x**1.5, lambda x: ops.sqrt(x * x)])
def test_there_is_none_at_a_kink_or_at_the_edge_of_the_domain(function: Any, interpreter: Interpreter) -> None:
    problem = one_leaf(function, [0.0, 1.0, 2.0])
    assert directional_derivatives(interpreter, problem, {"x": 3}, seed=[0])["x"] == ()


def test_along_a_leaf_without_a_path_the_derivative_is_zero(interpreter: Interpreter) -> None:
    problem = Problem("apart", lambda p, b: p["x"].sum(), {"x": np.ones(2), "y": np.ones(3)}, {})
    (probe,) = directional_derivatives(interpreter, problem, {"y": 1}, seed=[0])["y"]
    assert probe.value == 0
    assert probe.bound <= 1e-300


def test_directions_are_no_coordinates() -> None:
    """The textbook's rule, which asks for coordinates, leaves them out."""
    gradient = np.array([1.0, 2.0, 3.0, 4.0])
    coordinates = (Probe(1.0, 1e-9, index=0, textbook=1.0), Probe(2.0, 1e-9, index=1, textbook=2.5))
    direction = Probe(0.5, 1e-20, direction=np.ones(4))
    of_two = textbook_difference({"x": gradient}, {"x": coordinates})
    assert of_two == pytest.approx(0.5 / (np.hypot(1, 2) + np.hypot(1, 2.5)))
    assert textbook_difference({"x": gradient}, {"x": (*coordinates, direction)}) == of_two
    assert textbook_difference({"x": gradient}, {"x": (direction,)}) is None


def test_one_that_refutes_is_kept_beside_others_that_do_not() -> None:
    gradient = np.array([1.0, 2.0])
    wrong, right = Probe(5.0, 1e-9, direction=np.ones(2)), Probe(3.0, 1e-9, direction=np.ones(2))
    seen = Sight(2).refuted_by(right, gradient, 0.0)
    assert seen.refuted is None
    assert Sight(2).refuted_by(wrong, gradient, 3.0).refuted is None, "rounding explains as much"
    for probe in (wrong, right, Probe(7.0, 1e-9, direction=np.ones(2))):
        seen = seen.refuted_by(probe, gradient, 0.0)
    assert seen.refuted is not None
    assert (seen.refuted.probe, seen.refuted.claim) == (wrong, 3.0)


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        (9.0, {"deep": 0, "last": 0, "apart": 0}),  # less than the forward pass
        (11.0, {"deep": 0, "last": 0, "apart": 2}),
        (12.0, {"deep": 0, "last": 1, "apart": 2}),
        (21.0, {"deep": 0, "last": 2, "apart": 2}),
        (22.0, {"deep": 1, "last": 1, "apart": 2}),
        (27.0, {"deep": 1, "last": 2, "apart": 2}),
        (99.0, {"deep": 2, "last": 2, "apart": 2}),
    ],
)
def test_each_leaf_gets_a_direction_before_any_gets_a_second(seconds: float, counts: dict[str, int]) -> None:
    assert Effort(10.0, {"deep": 5.0, "last": 1.0, "apart": 0.0}).directions(seconds) == counts


PARAMS = {"w": np.random.default_rng(0).standard_normal((5, 4)), "c": np.random.default_rng(1).standard_normal((5, 4))}


def without_a_batch(p: Params, b: Any) -> Any:
    """So large a loss that float64 differences see seven digits or so."""
    return (ops.tanh(p["w"]) * p["c"]).sum() + 1e5


def over_budget(interpreter: Interpreter, problem: Problem, directions: Mapping[str, int]) -> float:
    """Seconds that are just enough for so many directions by leaf."""
    needed = effort(interpreter, problem)
    seconds = 1.001 * (needed.forward + sum(2 * count * needed.moved[path] for path, count in directions.items()))
    assert seconds < needed.reference
    return seconds


def within(interpreter: Interpreter, problem: Problem, directions: Mapping[str, int]) -> Affordable:
    seconds = over_budget(interpreter, problem, directions)
    found = affordable_reference(interpreter, problem, seconds=seconds, seed=[0])
    assert found.reference is None
    assert not found.refuted
    return found


def test_without_a_batch_they_are_taken_as_time_allows(interpreter: Interpreter) -> None:
    problem = Problem("large", without_a_batch, PARAMS, {})
    found = within(interpreter, problem, {"w": 1, "c": 2})
    assert {path: len(probes) for path, probes in found.probes.items()} == {"w": 1, "c": 2}
    assert found.refused["w"].startswith("it would take about 0.")
    assert found.refused["w"].endswith("); 256-bit derivatives along 1 direction check one in float64")
    assert found.refused["c"].endswith("); 256-bit derivatives along 2 directions check one in float64")


def test_where_there_is_time_for_one_leaf_the_other_says_so(interpreter: Interpreter) -> None:
    problem = Problem("large", without_a_batch, PARAMS, {})
    found = within(interpreter, problem, {"c": 1})
    assert {path: len(probes) for path, probes in found.probes.items()} == {"w": 0, "c": 1}
    assert found.refused["w"].endswith(
        "), and there is no time for its 256-bit derivatives; one in float64 is held against differences"
    )


def test_without_time_for_any_nothing_is_computed(interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("large", without_a_batch, PARAMS, {})
    monkeypatch.setattr("gradwitness.evidence.effort.directional_derivatives", None)
    found = within(interpreter, problem, {})
    assert not found.probes
    assert "there is no time for its 256-bit derivatives" in found.refused["c"]


def test_at_a_kink_they_say_nothing(interpreter: Interpreter) -> None:
    params = {"x": np.zeros(3), "c": np.ones(3)}
    problem = Problem("kink", lambda p, b: (ops.relu(p["x"]) * p["c"]).sum(), params, {})
    found = within(interpreter, problem, {"x": 1, "c": 1})
    assert {path: len(probes) for path, probes in found.probes.items()} == {"x": 0, "c": 1}
    assert found.refused["x"].endswith(
        "); 256-bit derivatives say nothing, as at a kink or at the edge of the domain; one in float64 is held against "
        "differences"
    )


def test_where_even_one_example_takes_too_long_they_are_taken(interpreter: Interpreter) -> None:
    def loss(p: Params, b: Params) -> Any:
        return ops.tanh(ops.linear(b["x"], p["w"])).sum()

    problem = Problem("two examples", loss, {"w": PARAMS["w"]}, {"x": PARAMS["c"][:2]})
    assert len(within(interpreter, problem, {"w": 1}).probes["w"]) == 1


def test_where_fewer_examples_change_the_loss_they_are_taken(interpreter: Interpreter) -> None:
    def loss(p: Params, b: Params) -> Any:
        return ops.tanh(b["x"] * p["w"]).sum()  # broadcasting ties the extents together

    problem = Problem("tied", loss, {"w": PARAMS["w"]}, {"x": PARAMS["c"]})
    assert len(within(interpreter, problem, {"w": 1}).probes["w"]) == 1


def test_a_branch_that_cannot_be_decided_leaves_none(interpreter: Interpreter) -> None:
    def straddled(p: Params, b: Any) -> Any:
        third = p["x"] / 3.0
        rounding = third + third + third - p["x"]  # 0 in truth: neither above it nor below
        return ops.where(rounding > 0, rounding, p["x"]).sum()

    found = within(interpreter, Problem("straddled", straddled, {"x": np.ones(2)}, {}), {"x": 1})
    assert not found.probes
    assert found.refused["x"].startswith("256 bits cannot say: undecided branch")


def verified(interpreter: Interpreter, dtype: str) -> gw.Report:
    problem = Problem("large", without_a_batch, PARAMS, {})
    seconds = over_budget(interpreter, problem, {"w": 1, "c": 1})
    return gw.verify(problem, backends=("numpy", "torch"), dtypes=dtype, seconds=seconds)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_gradient_is_confirmed_and_candidates_agree(dtype: str, interpreter: Interpreter) -> None:
    report = verified(interpreter, dtype)
    assert report
    assert {row.verdict for row in report.rows} == {Verdict.AGREE}
    assert not any("no reference stands" in row.message for row in report.rows)
    assert "no reference in 256 bits: it would take about 0.0" in report.table()
    assert "; 256-bit derivatives along 1 direction check one in float64" in report.table()


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 1e-9 too much in the backward of tanh."""
    right = RULES["tanh"]
    monkeypatch.setitem(RULES, "tanh", replace(right, vjp=lambda g, step: [right.vjp(g, step)[0] * (1 + 1e-9)]))


def test_an_error_that_float64_differences_cannot_see_is_found(
    interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    rows = verified(interpreter, "float64").rows
    assert {(row.backend, row.parameter): row.verdict for row in rows} == {
        ("numpy", "w"): Verdict.DISAGREE,
        ("numpy", "c"): Verdict.AGREE,
        ("torch", "w"): Verdict.AGREE,
        ("torch", "c"): Verdict.AGREE,
    }
    messages = {(row.backend, row.parameter): row.message for row in rows}
    assert messages["numpy", "w"].startswith("finite differences refute it along a Gaussian direction: ")
    found, expected = messages["numpy", "w"].rpartition(": ")[2].split(", finite difference ")
    assert 1e-10 < abs(float(found) / float(expected.split(" +- ")[0]) - 1) < 1e-8
    assert messages["torch", "w"] == "judged by finite differences, as no reference stands"


def test_float64_differences_alone_do_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    report = gw.verify(
        Problem("large", without_a_batch, PARAMS, {}), backends=("numpy",), dtypes="float64", reference="differences"
    )
    assert {row.verdict for row in report.rows} == {Verdict.AGREE}
