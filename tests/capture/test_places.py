"""Whoever names a node of a captured loss names its line, and in a module its qualified name."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import gradwitness as gw
from gradwitness.evidence.exercise import exercise
from gradwitness.explain import explain
from gradwitness.protocol import Interpreter
from gradwitness.report.explanation import text
from gradwitness_torch import from_module

X = {"x": np.array([[1.0, -2.0, 0.5]])}
HERE = os.path.basename(__file__)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.Linear(3, 2), nn.ReLU()

    def forward(self, x: Any) -> Any:
        hidden = self.act(self.up(x))
        hidden = torch.where(hidden > 0.25, hidden / 2, hidden)
        return hidden * (1 + hidden.argmax())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Mlp()])

    def forward(self, x: Any) -> Any:
        return self.layers[0](x)


def module_loss(module: Any, batch: Any) -> Any:
    return module(batch["x"]).sum()


def rectified(params: Any, batch: Any) -> Any:
    hidden = jnp.maximum(batch["x"] @ params["w"], 0.0)
    hidden = jnp.where(hidden > 0.25, hidden / 2, hidden)
    return hidden.sum() * (1 + jnp.argmax(hidden))


def line_of(thing: Any, after: str) -> int:
    """The number of the line in which a function or class of this file has this text."""
    lines, first = inspect.getsourcelines(thing)
    return first + next(i for i, line in enumerate(lines) if after in line)


def problem(backend: str, weight: float) -> gw.Problem:
    """Whose graph was captured; relu is at its kink if the weights are 0."""
    if backend == "jax":
        params: Any = {"w": np.full((3, 2), weight) * [1.0, 2.0]}
        graph = gw.capture(gw.Candidate("jax", rectified), params, X)
    else:
        module = Net()
        for parameter in module.parameters():
            nn.init.constant_(parameter, weight)
        loss, params = from_module(module, module_loss)
        graph = gw.capture(gw.Candidate("torch", loss), params, X)
    return gw.Problem("net", graph, params, X)


ACTIVATED = {  # the op with a kink, and where it is called
    "torch": ("relu", f"layers.0.act ({HERE}:{line_of(Mlp, 'self.act(')})"),
    "jax": ("maximum", f"{HERE}:{line_of(rectified, 'jnp.maximum')}"),
}
each = pytest.mark.parametrize("backend", ACTIVATED)


@each
def test_what_was_never_exercised_names_it(backend: str, interpreter: Interpreter) -> None:
    op, place = ACTIVATED[backend]
    found = {call.op: call.line for call in exercise(interpreter, problem(backend, -1.0))}
    assert found[op] == place


@each
def test_a_kink_names_it(backend: str) -> None:
    op, place = ACTIVATED[backend]
    at_kink = problem(backend, 0.0)

    def passed_on(params: Any, batch: Any) -> Any:
        """As if the slope were 1 there."""
        x = X["x"][0]
        return {
            path: np.ones(2) if path.endswith("bias") else np.tile(x, (2, 1)) if "up" in path else np.tile(x, (2, 1)).T
            for path in at_kink.params
        }

    mine = gw.Candidate("numpy", gradient=passed_on)
    report = gw.verify(at_kink.graph, at_kink.params, X, backends=(), candidates={"mine": mine}, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} == {"convention"}, repr(report)
    assert all(re.search(rf"at a kink: {op} at .* \({re.escape(place)}\) ", row.message) for row in report.rows)


@each
def test_explain_names_it(backend: str) -> None:
    op, place = ACTIVATED[backend]
    lines = text(explain(problem(backend, 1.0))).splitlines()
    assert any(line.startswith(f"{op} = ") and line.endswith(f"   ({place})") for line in lines)


@each
def test_a_decision_names_it(backend: str) -> None:
    graph = problem(backend, 1.0).graph
    places = {remark.line.brief for remark in graph.remarks if remark.line is not None and "argmax" in remark.text}
    by_module = f"layers.0 ({HERE}:{line_of(Mlp, 'argmax')})"
    assert places == {by_module if backend == "torch" else f"{HERE}:{line_of(rectified, 'argmax')}"}


@each
def test_a_branch_that_no_digits_decide_names_it(backend: str, interpreter: Interpreter) -> None:
    blurred = problem(backend, 1.0)
    place = (
        f"layers.0 ({HERE}:{line_of(Mlp, '> 0.25')})"
        if backend == "torch"
        else f"{HERE}:{line_of(rectified, '> 0.25')}"
    )
    with interpreter.extended(64) as wide, pytest.raises(ArithmeticError, match=re.escape(f", in greater at {place}")):
        wide.forward(blurred.graph, {path: x * around_zero() for path, x in blurred.leaves.items()})


def around_zero() -> Any:
    from flint import arb

    return np.array(arb(0, 1), object)


def test_a_script_names_it() -> None:
    op, place = ACTIVATED["torch"]
    source = problem("torch", 1.0).graph.source(places=True)
    assert any(f" = {op}(" in line and line.endswith(f"  # {place}") for line in source.splitlines())
    assert "#" not in problem("jax", 1.0).graph.source(places=True)
