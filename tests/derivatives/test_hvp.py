"""Products with the Hessian, as frameworks take them: right ones agree, wrong ones are caught, and what a framework
cannot do is said."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gradwitness as gw
from gradwitness import ops
from gradwitness.cli import cli
from gradwitness.networks import NETWORKS, network
from tests.capture.trust import halved
from tests.derivatives.found import by_candidate, derivative

NORMALIZED = ("batchnorm_mlp", "layernorm_mlp", "convnet", "transformer")
WAYS = ("twice", "through jvp", "by jvp")


verified = partial(derivative, "hvp")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_framework_agrees_in_each_of_its_ways(dtype: str) -> None:
    report = verified(network("deep_sigmoid", depth=3), backends=["numpy", "torch", "jax"], dtypes=dtype)
    labels = {"numpy", *(f"{name} [{way}]" for name in ("torch", "jax") for way in WAYS)}
    assert by_candidate(report) == {label: {"agree"} for label in labels}, repr(report)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_networks_agree(name: str, dtype: str) -> None:
    """All but what torch has wrong of its norms, which the test of layer norm shows by torch alone."""
    report = verified(network(name), backends=["numpy", "torch", "jax"], dtypes=dtype)
    found = by_candidate(report)
    if name in NORMALIZED:
        found.pop("torch [through jvp]")
    assert all(verdicts <= {"agree", "unsupported"} for verdicts in found.values()), repr(report)
    assert found["numpy"] == found["jax [twice]"] == {"agree"}


def is_right_in_torch(norm: Any, way: str) -> bool:
    """By torch alone: against differences of its own gradient, of a formula of elementary ops."""
    generator = torch.Generator().manual_seed(0)
    x, v, weights = (torch.randn(6, 5, dtype=torch.float64, generator=generator) for _ in range(3))

    def loss(x: Any) -> Any:
        return (norm(x) * weights).tanh().sum()

    def gradient(x: Any) -> Any:
        return torch.autograd.grad(loss(x := x.detach().requires_grad_()), x)[0]

    point = x.clone().requires_grad_()
    if way == "through jvp":
        product = torch.autograd.grad(torch.func.jvp(loss, (point,), (v,))[1], point)[0]
    else:
        (first,) = torch.autograd.grad(loss(point), point, create_graph=True)
        product = torch.autograd.grad((first * v).sum(), point)[0]
    differences = (gradient(x + 1e-6 * v) - gradient(x - 1e-6 * v)) / 2e-6
    return bool((product - differences).norm() < 1e-6 * differences.norm())


@pytest.mark.parametrize("way", ["twice", "through jvp"])
def test_torchs_layer_norm_is_judged_as_it_is(way: str) -> None:
    """Its derivative through forward mode takes the saved mean and deviation for constants, in torch 2.13 at least."""

    def norm(x: Any) -> Any:
        return torch.nn.functional.layer_norm(x, (5,))

    def loss(p: Any, b: Any) -> Any:
        return (norm(p["x"]) * b["w"]).tanh().sum()

    rng = np.random.default_rng(0)
    report = verified({"torch": loss}, {"x": rng.normal(size=(6, 5))}, {"w": rng.normal(size=(6, 5))})
    verdict = "agree" if is_right_in_torch(norm, way) else "disagree"
    assert by_candidate(report)[f"torch [{way}]"] == {verdict}, repr(report)


class Cube(torch.autograd.Function):
    """x^3, whose backward uses what forward computed beside: right once, and wrong twice."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.square = (x * x).detach()
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * 3 * ctx.square


class Rightly(Cube):
    """The same, of what is saved."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g[0] * 3 * x * x


@pytest.mark.parametrize(("rule", "verdict"), [(Cube, "missing"), (Rightly, "agree")])
def test_a_double_backward_of_a_users_own_rule_is_judged(rule: Any, verdict: str) -> None:
    def loss(p: Any, b: Any) -> Any:
        return (rule.apply(p["w"]) * b["x"]).sum()

    point = {"w": np.array([0.7, -1.3, 2.0])}, {"x": np.array([1.0, 2.0, -0.5])}
    assert gw.verify({"torch": loss}, *point, dtypes="float64"), "its gradient is right"
    found = by_candidate(verified({"torch": loss}, *point))
    assert found["torch [twice]"] == {verdict}
    assert found["torch [through jvp]"] == {"unsupported"}  # the rule has no jvp


@jax.custom_vjp
def scaled(x: Any) -> Any:
    return jnp.sin(x)


scaled.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jax.lax.stop_gradient(jnp.cos(x)),))


@jax.custom_vjp
def rightly(x: Any) -> Any:
    return jnp.sin(x)


rightly.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


@pytest.mark.parametrize(("rule", "verdict"), [(scaled, "disagree"), (rightly, "agree")])
def test_a_custom_vjp_is_judged_twice_too(rule: Any, verdict: str) -> None:
    def loss(p: Any, b: Any) -> Any:
        return jnp.sum(rule(p["w"]) ** 2)

    found = by_candidate(verified({"jax": loss}, {"w": np.array([0.4, 1.1])}))
    assert found == {"jax [twice]": {verdict}, "jax [through jvp]": {"unsupported"}, "jax [by jvp]": {verdict}}


def test_a_loss_whose_graph_is_not_it_is_refused() -> None:
    def loss(p: Any, b: Any) -> Any:
        return halved(p["w"], torch.where, torch.zeros_like(p["w"]), torch.full_like(p["w"], 3.0)).sum()

    with pytest.raises(gw.GradwitnessError, match="see to its gradient first"):
        verified({"torch": loss}, {"w": np.array([0.3, 1.1])})


def test_a_gradient_by_hand_has_no_further_derivative() -> None:
    mine = gw.Candidate("numpy", lambda p, b: (p["w"] ** 2).sum(), gradient=lambda p, b: {"w": 2 * p["w"]})
    with pytest.raises(gw.GradwitnessError, match="no further derivative"):
        verified({"mine": mine}, {"w": np.ones(2)})


def test_torch_compile_says_that_it_cannot() -> None:
    report = verified(network("article"), backends="torch.compile")
    (row,) = report.rows
    assert row.verdict == "unsupported"
    assert "no second derivative" in row.message


def test_the_command_takes_it() -> None:
    command = ["verify", "article", "--derivative", "hvp", "--backend", "numpy,jax", "--jobs", "1"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    assert "32 gradients: 32 agree" in found.output
    assert CliRunner().invoke(cli, ["verify", "article", "--derivative", "jacobian"]).exit_code == 2


def test_what_a_loss_stops_stands_still() -> None:
    def loss(p: Any, b: Any) -> Any:
        return ((ops.stop_gradient(ops.tanh(p["a"])) * p["w"]) ** 2.0).sum() + (ops.softmax(p["a"]) ** 2.0).sum()

    params = {"a": np.array([0.3, -0.7]), "w": np.array([1.1, 0.4])}
    report = verified(loss, params, {}, backends=["numpy", "torch", "jax"])
    assert {str(row.verdict) for row in report.rows} == {"agree"}, repr(report)


def test_what_a_loss_detaches_stands_still_too() -> None:
    def loss(p: Any, b: Any) -> Any:
        return ((p["w"] * p["w"].detach().tanh()) ** 2).sum() + (p["v"] ** 3).sum()

    params = {"w": np.array([0.3, -0.7]), "v": np.array([1.1, 0.4])}
    report = verified({"torch": loss}, params, {}, intended={"w": "detached"})
    assert {str(row.verdict) for row in report.rows} == {"agree"}, repr(report)


@pytest.mark.parametrize("derivative", ["jvp", "vjp", "hvp", "hessian", "per-example"])
def test_what_a_loss_detaches_without_saying_so_is_no_derivative_of_any_kind(derivative: str) -> None:
    def loss(p: Any, b: Any) -> Any:
        return ((b["z"] @ (p["x"] * p["x"].detach())) ** 2).sum()

    params, batch = {"x": np.array([0.3, -0.7])}, {"z": np.array([[1.0, 2.0], [0.5, -1.5], [2.0, 0.3]])}
    with pytest.raises(gw.GradwitnessError, match=rf"torch: {derivative} takes as constant what the loss detaches"):
        gw.verify({"torch": loss}, params, batch, dtypes="float64", derivative=derivative)
    declared = gw.verify(
        {"torch": loss}, params, batch, dtypes="float64", derivative=derivative, intended={"x": "detached"}
    )
    assert {str(row.verdict) for row in declared.rows} == {"agree"}, repr(declared)


def test_a_derivative_that_is_zero_and_holds_no_numbers_is_read() -> None:
    loss = lambda p, b: (p["x"] * p["x"].detach()).sum()  # noqa: E731
    report = verified({"torch": loss}, {"x": np.array([0.3, -0.7])}, {}, intended={"x": "detached"})
    assert {str(row.verdict) for row in report.rows} == {"agree"}, repr(report)


def test_a_router_and_a_kink_are_refused_by_name() -> None:
    def routed(p: Any, b: Any) -> Any:
        return (torch.softmax(p["r"], 0).topk(1).values * p["w"][p["r"].topk(1).indices]).sum()

    params = {"r": np.array([0.3, 0.9]), "w": np.array([1.1, 0.4])}
    (row,) = verified({"torch": routed}, params, {}).rows
    assert row.verdict == "unsupported"
    assert "decides something at the point" in row.message

    def at_its_kink(p: Any, b: Any) -> Any:
        return (ops.relu(p["w"]) * p["v"]).sum() + (p["w"] ** 2.0).sum()

    (row,) = verified(at_its_kink, {"w": np.zeros(2), "v": np.ones(2)}, {}, backends="jax").rows
    assert row.verdict == "unsupported"
    assert "at this very point the gradient of w depends on the slope" in row.message


def test_paths_are_refused() -> None:
    with pytest.raises(gw.GradwitnessError, match="leave paths out"):
        verified({"jax": lambda p, b: jnp.sum(jnp.tanh(p["w"]) ** 2)}, {"w": np.array([0.2, 0.5])}, paths="all")
