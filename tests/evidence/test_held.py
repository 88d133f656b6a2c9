"""Held branches: long differences across many kinks give the derivative at the point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gradwitness import ops
from gradwitness.evidence import held
from gradwitness.evidence.finite_difference import Line, Slope
from gradwitness.evidence.held import held_branches
from gradwitness.evidence.kinks import members
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.sight import look
from gradwitness.networks import network
from gradwitness.networks.single_ops import problems_of
from gradwitness.ops import OPS
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings

Array = np.ndarray[Any, Any]
EPS = 2.0**-53
LONG = 0  # the place of the longest step, three tenths of a leaf, from which the search begins
PIECEWISE = [op.name for op in OPS.values() if op.kink is not None and op.kink.kind in ("bend", "tie")]


class Held:
    """A problem's loss with every branch as it is at the point, or as it comes."""

    def __init__(self, interpreter: Interpreter, problem: Problem, *, holds: bool = True) -> None:
        self.interpreter, self.problem = interpreter, problem
        self.tape = interpreter.forward(problem.graph, problem.leaves)
        self.gradients = interpreter.backward(self.tape, problem.differentiated)
        self.hook = held_branches(problem.graph, lambda node: self.tape.steps[node.id]) if holds else None

    def loss(self, **moved: Array) -> float:
        hook: dict[str, Any] = {} if self.hook is None else {"on_value": self.hook}
        return self.interpreter.loss(
            self.interpreter.forward(self.problem.graph, {**self.problem.leaves, **moved}, **hook)
        )

    def slope(self, path: str, v: Array) -> Slope:
        """Along a direction within a leaf, from the longest step on."""
        x = self.problem.primals[path]
        loss, size = self.loss(), norm(self.gradients[path] * v)
        noise = EPS * (abs(loss) + norm(self.gradients[path] * x))
        return Line(lambda t: self.loss(**{path: x + t * v}), loss, noise, EPS * size, size).slope(LONG)

    def errors(self, directions: int = 4) -> Iterator[float]:
        """How far slopes are from the gradient, as part of what they are made of."""
        for path, x in self.problem.primals.items():
            for v in typical(x) * np.random.default_rng(1).standard_normal((directions, *x.shape)):
                size = norm(self.gradients[path] * v)
                claim = float(np.vdot(self.gradients[path], v))
                found = self.slope(path, v)
                assert abs(found.value - claim) <= found.bound or size == 0 or self.hook is None
                yield abs(found.value - claim) / (size or 1.0)


@pytest.mark.parametrize("name", PIECEWISE)
def test_across_the_kinks_of_every_piecewise_op_they_give_the_derivative_at_the_point(
    name: str, interpreter: Interpreter
) -> None:
    for problem in problems_of(OPS[name]):
        for error in Held(interpreter, problem).errors():
            assert error < (1e-7 if name == "elu" else 1e-12), problem.name  # which is curved on one side


# so many units that every direction crosses kinks of some
WIDE: dict[str, Callable[[Any], Any]] = {
    "abs": ops.abs,
    "relu": ops.relu,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.2),
    "elu": ops.elu,
    "hardtanh": ops.hardtanh,
    "clip": lambda x: ops.clip(x, min=-0.5, max=0.7),
    "maximum": lambda x: ops.maximum(x[:200], x[200:] * 0.5),
    "minimum": lambda x: ops.minimum(x * x, x + 1.0),
    "max": lambda x: ops.max(x.reshape((100, 4)), axis=1),
    "min": lambda x: ops.min(x.reshape((4, 100)), axis=0),
    "max_pool2d": lambda x: ops.max_pool2d(x.reshape((1, 4, 10, 10)), kernel_size=2),
    "where": lambda x: ops.where(x > 0.3, x * 2.0, x * x - 4.0),
}


def wide(name: str) -> Problem:
    """A function of four hundred numbers, weighted and summed."""
    shape = {"maximum": (200,), "max": (100,), "min": (100,), "max_pool2d": (1, 4, 5, 5)}.get(name, (400,))
    weights = np.random.default_rng(2).standard_normal(shape)
    params = {"x": np.random.default_rng(3).standard_normal(400)}
    return Problem(name, lambda p, b: (WIDE[name](p["x"]) * b["w"]).sum(), params, {"w": weights})


def test_every_piecewise_op_has_a_wide_problem() -> None:
    assert set(PIECEWISE) <= set(WIDE)


@pytest.mark.parametrize("name", WIDE)
def test_without_being_held_a_long_step_is_the_mean_of_both_sides(name: str, interpreter: Interpreter) -> None:
    """Held, it is the derivative; a comparison stays as it was decided, and its jump with it."""
    problem = wide(name)
    x = problem.primals["x"]
    held_, loose = Held(interpreter, problem), Held(interpreter, problem, holds=False)
    for v in typical(x) * np.random.default_rng(4).standard_normal((3, 400)):
        claim, h = float(np.vdot(held_.gradients["x"], v)), 0.3
        size = norm(held_.gradients["x"] * v)
        plain = [(of.loss(x=x + h * v) - of.loss(x=x - h * v)) / (2 * h) for of in (held_, loose)]
        assert abs(plain[0] - claim) < (1e-1 if name == "elu" else 1e-12) * size
        assert abs(plain[1] - claim) > 1e-3 * size
        assert abs(held_.slope("x", v).value - claim) < 1e-7 * size


def test_at_the_point_itself_nothing_changes(interpreter: Interpreter) -> None:
    for name in WIDE:
        problem = wide(name)
        assert Held(interpreter, problem).loss() == Held(interpreter, problem, holds=False).loss()


def test_a_graph_without_branches_needs_none(interpreter: Interpreter) -> None:
    problem = Problem("smooth", lambda p, b: ops.tanh(p["x"]).sum(), {"x": np.ones(5)}, {})
    assert held_branches(problem.graph, lambda node: None) is None


def swapped(node: Any, here: Any) -> Callable[[Any], Any]:
    """A hold that goes on along the tangent of the wrong side."""
    kink = OPS[node.op].kink
    assert kink is not None
    (bend, *_) = kink.bends(node.attributes)

    def on(step: Any) -> Any:
        x, was = np.asarray(step.operands[0]), np.asarray(here.operands[0])
        return np.where(was > bend.at, bend.left, bend.right) * (x - was) + here.output

    return on


def last(node: Any, here: Any) -> Callable[[Any], Any]:
    """A hold under which the last member of each group wins."""
    operand, element = members(node)
    which, where = operand[:, -1], element[:, -1]
    return lambda step: held._picked(step, which, where, np.shape(here.output)).reshape(np.shape(here.output))


def moves_on(node: Any, here: Any) -> Callable[[Any], Any]:
    """None at all."""
    return lambda step: step.output


@pytest.mark.parametrize(
    ("rule", "planted", "name"),
    [
        ("_bend", swapped, "relu"),
        ("_bend", swapped, "leaky_relu"),
        ("_bend", moves_on, "abs"),
        ("_tie", last, "max"),
        ("_tie", last, "max_pool2d"),
        ("_tie", moves_on, "maximum"),
        ("_decided", moves_on, "where"),
    ],
)
def test_a_wrong_hold_is_found(
    rule: str, planted: Any, name: str, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient then looks wrong, or the bound shows that no step is of use."""
    problem = wide(name)
    x = problem.primals["x"]
    v = typical(x) * np.random.default_rng(4).standard_normal(400)
    assert Held(interpreter, problem).slope("x", v).bound < 1e-9
    monkeypatch.setattr(held, rule, planted)
    wrong = Held(interpreter, problem)
    found, claim = wrong.slope("x", v), float(np.vdot(wrong.gradients["x"], v))
    plain = (wrong.loss(x=x + 0.3 * v) - wrong.loss(x=x - 0.3 * v)) / 0.6
    assert found.refutes(claim) or abs(plain - claim) > 1e-3 * norm(wrong.gradients["x"] * v)


@pytest.mark.parametrize("name", ["deep_relu", "convnet"])
def test_a_network_of_many_kinks_is_seen_whole(name: str) -> None:
    """Without 256 bits differences must speak for every element."""
    known = graph_referee(network(name), "float64", Settings(dtypes=("float64",), reference="differences"))
    assert not any(sight.unseen or sight.refuted for sight in known.sights.values())


def test_less_is_seen_of_one_whose_kinks_are_not_held() -> None:
    known = graph_referee(network("deep_relu"), "float64", Settings(dtypes=("float64",), reference="differences"))
    gradients = {path: g.high for path, g in known.gradients.items()}
    loose = look(known.across_kinks, gradients, lambda moved: (0.0, 0.0), seed=(0, 2))
    assert sum(sight.limit for sight in loose.values()) > 10 * sum(sight.limit for sight in known.sights.values())
