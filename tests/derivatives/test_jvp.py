"""Forward mode, and reverse mode as a function: right ones agree on each backend, wrong ones are caught."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import registry
from gradwitness.derivatives import RULES, stepped
from gradwitness.graph import direction, step, trace
from gradwitness.networks import NETWORKS, network
from tests.derivatives.found import by_candidate, derivative

verified = partial(derivative, "jvp")
FORWARD = {"numpy [forward mode]", "torch [torch.func.jvp]", "jax [jax.jvp]", "jax [jax.linearize]"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_forward_mode_agrees_on_every_backend(dtype: str) -> None:
    report = verified(network("deep_sigmoid", depth=3), backends=["numpy", "torch", "jax"], dtypes=dtype)
    assert by_candidate(report) == {label: {"agree"} for label in FORWARD}, repr(report)
    assert {row.parameter for row in report.rows} >= {"along.layers.0.weight"}


@pytest.mark.nightly
@pytest.mark.parametrize("which", ["jvp", "vjp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree(name: str, which: str) -> None:
    report = gw.verify(network(name), backends=["numpy", "torch", "jax"], derivative=which)
    assert {str(row.verdict) for row in report.rows} <= {"agree", "convention"}, repr(report)


def test_a_step_goes_along_its_directions() -> None:
    """By arithmetic alone: the loss after steps is that at the moved point."""
    graph = trace(lambda p, b: ((p["w"] * b["x"]) ** 2.0).sum(), {"w": np.zeros(3)}, {"x": np.zeros(3)})
    moved = stepped(graph, ("w",), 2)
    rng = np.random.default_rng(0)
    w, x, v, t = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(2, 3)), rng.normal(size=2)
    interpreter = registry.interpreter()
    found = interpreter.loss(interpreter.forward(moved, {"w": w, "x": x, direction("w"): v, step("w"): t}))
    assert found == pytest.approx(float((((w + t @ v) * x) ** 2).sum()))


def rule_in_torch(slope: Callable[[Any], Any]) -> Any:
    """The sine, with a right backward, and a jvp that takes this for its slope."""

    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return torch.sin(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            return g[0] * torch.cos(ctx.saved_tensors[0])

        @staticmethod
        def jvp(ctx: Any, *t: Any) -> Any:
            return t[0] * slope(ctx.saved_tensors[0])

    return Sine.apply


@pytest.mark.parametrize(("slope", "verdict"), [(torch.cos, "agree"), (lambda x: 1.001 * torch.cos(x), "disagree")])
def test_the_jvp_of_a_users_rule_is_judged(slope: Any, verdict: str) -> None:
    rule = rule_in_torch(slope)

    def loss(p: Any, b: Any) -> Any:
        return (rule(p["w"]) ** 2).sum()

    point = {"w": np.array([0.3, -1.2, 2.0])}
    assert gw.verify({"torch": loss}, point, dtypes="float64"), "its gradient is right"
    found = by_candidate(verified({"torch": loss}, point))
    assert found == {"torch [torch.func.jvp]": {verdict}}


def rule_in_jax(factor: float) -> Any:
    @jax.custom_jvp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), factor * jnp.cos(primals[0]) * tangents[0]))
    return sine


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "agree"), (1.001, "disagree")])
def test_a_custom_jvp_is_judged(factor: float, verdict: str) -> None:
    rule = rule_in_jax(factor)
    report = verified({"jax": lambda p, b: jnp.sum(rule(p["w"]) ** 2)}, {"w": np.array([0.3, -1.2])})
    assert by_candidate(report) == {"jax [jax.jvp]": {verdict}, "jax [jax.linearize]": {verdict}}, repr(report)


def test_a_wrong_rule_of_numpys_forward_mode_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth takes no part in it: it is that of reverse mode, confirmed by differences."""
    monkeypatch.setitem(RULES, "tanh", lambda a, t: t[0] * (1.0 - a.result))
    found = by_candidate(verified(network("mlp"), backends=["numpy", "jax"]))
    assert "disagree" in found["numpy [forward mode]"]
    assert found["jax [jax.jvp]"] == {"agree"}


def test_what_a_loss_does_not_read_has_no_step() -> None:
    report = verified({"torch": lambda p, b: (p["w"] ** 2).sum()}, {"w": np.ones(2), "unused": np.ones(3)})
    assert {row.parameter for row in report.rows} == {"along.w"}
    assert report


def test_vjp_takes_the_cotangent_of_several_outputs() -> None:
    def loss(p: Any, b: Any) -> Any:
        return {"a": torch.tanh(p["w"]), "b": (p["w"] ** 2).sum(0)}

    point = {"w": np.array([[0.3, -1.2], [0.7, 0.1]])}
    cotangent = {"a": np.array([[1.0, 0.5], [-2.0, 0.3]]), "b": np.array([0.2, -1.0])}
    report = derivative("vjp", {"torch": loss}, point, {}, cotangent=cotangent)
    assert by_candidate(report) == {"torch [torch.func.vjp]": {"agree"}}, repr(report)


def test_a_wrong_backward_is_caught_by_vjp() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return torch.sin(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            return g[0] * 1.01 * torch.cos(ctx.saved_tensors[0])

    def loss(p: Any, b: Any) -> Any:
        return Twice.apply(p["w"]).sum()  # type: ignore[no-untyped-call]

    report = derivative("vjp", {"torch": loss}, {"w": np.array([0.3, -1.2])})
    assert by_candidate(report) == {"torch [torch.func.vjp]": {"disagree"}}
