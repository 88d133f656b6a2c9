"""What the shrinking accepts, and what it must not."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradwitness as gw
from gradwitness.problem import Problem
from gradwitness.repro.difference import central_difference, explained
from gradwitness.repro.fault import Fault, located, look
from gradwitness.repro.shrink import shrunk
from gradwitness.settings import Settings

UNIT = 2.0**-53


@pytest.mark.parametrize(
    ("function", "derivative", "x"),
    [
        (math.exp, math.exp, 1.0),
        (math.log, lambda x: 1 / x, 1e-3),
        (math.sin, math.cos, 0.0),
        (lambda x: 1e6 * x**3, lambda x: 3e6 * x**2, 20.0),
    ],
)
def test_the_bound_of_a_difference_holds_and_is_small(function, derivative, x):  # type: ignore[no-untyped-def]
    found, bound, step = central_difference(function, x)
    assert abs(found - derivative(x)) <= bound <= 1e-6 * max(abs(derivative(x)), 1.0)
    assert step > 0
    assert explained(derivative(x), found, bound, UNIT)
    assert not explained(derivative(x) * (1 + 1e-4), found, bound, UNIT)


def test_at_a_kink_the_bound_covers_both_slopes() -> None:
    found, bound, _ = central_difference(lambda x: max(x, 0.0), 0.0)
    assert bound >= 0.5
    assert explained(0.0, found, bound, UNIT)
    assert explained(1.0, found, bound, UNIT)


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_what_is_no_number_is_never_explained(gradient: float) -> None:
    assert not explained(gradient, 1.0, 1e-9, UNIT)


def fault_of(size: int, wrong: int) -> Fault:
    """One element of a gradient by hand is wrong by a tenth."""

    def loss(params, batch):  # type: ignore[no-untyped-def]
        return np.sum(np.sin(params["w"]) * batch["x"])

    def gradient(params, batch):  # type: ignore[no-untyped-def]
        right = np.cos(params["w"]) * batch["x"]
        right[wrong] *= 1.1
        return {"w": right}

    draw = np.random.default_rng(3).normal
    problem = Problem("loss", None, {"w": draw(size=size)}, {"x": draw(size=size) + 3})
    candidate = gw.Candidate("numpy", loss, gradient=gradient)
    return Fault(candidate, problem, "float64", "cpu", Settings(("float64",)), "w")


@pytest.mark.parametrize("wrong", [0, 12345, 99999])
def test_one_wrong_element_of_a_hundred_thousand_is_located(wrong: int) -> None:
    assert located(fault_of(100_000, wrong)).index == (wrong,)


def test_a_gradient_that_is_right_has_no_such_element() -> None:
    fault = fault_of(10, 3)
    right = gw.Candidate("numpy", fault.candidate.loss, gradient=lambda p, b: {"w": np.cos(p["w"]) * b["x"]})
    with pytest.raises(gw.GradwitnessError, match="no single element is so wrong"):
        located(Fault(right, fault.problem, "float64", "cpu", fault.settings, "w"))


def test_each_step_shows_the_same_and_is_smaller() -> None:
    steps = shrunk(located(fault_of(50, 0)), 20.0)
    sizes = [step.problem.leaves["w"].size for step in steps]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    for step in steps:
        seen = look(step)
        assert seen.is_wrong
        assert seen.kind == "disagree"
    assert all(abs(look(step).relative_error - 1 / 11) < 1e-6 for step in steps)


def test_a_function_of_one_size_only_keeps_its_size() -> None:
    fault = fault_of(6, 2)  # element 2 is what its gradient gets wrong, wherever that is
    (*_, last) = shrunk(located(fault), 20.0)
    assert last.problem.leaves["w"].size == 3  # the first two are needed to call it the third


def test_rounding_does_not_take_the_place_of_a_fault() -> None:
    """cos(w) near its zero has few digits: there a float32 gradient may be far from the derivative and right."""
    fault = fault_of(4, 1)
    narrow = Fault(fault.candidate, fault.problem.rounded("float32"), "float32", "cpu", fault.settings, "w")
    (*_, last) = shrunk(located(narrow), 20.0)
    assert look(last).is_wrong
    assert look(Fault(**{**vars(last), "dtype": "float64"})).is_wrong
