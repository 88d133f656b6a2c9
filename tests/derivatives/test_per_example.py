"""Gradients of single examples: right ones agree and are parts of the batch's gradient, wrong ones are caught."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops, registry
from gradwitness.derivatives import by_example
from gradwitness.lowering import reduction_over_examples
from gradwitness.networks import NETWORKS, network
from tests.derivatives.found import by_candidate, derivative

verified = partial(derivative, "per-example")
WAYS = {f"{name} [{way}]" for name in ("torch", "jax") for way in ("vmap", "one by one")}
WHOLE = {"article", "batchnorm_mlp", "convnet", "gaussian_mixture"}  # one example; a norm of the batch; a prior beside


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_way_agrees(dtype: str) -> None:
    report = verified(network("mlp"), backends=["numpy", "torch", "jax"], dtypes=dtype)
    assert by_candidate(report) == {label: {"agree"} for label in {"numpy"} | WAYS}, repr(report)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree(name: str) -> None:
    report = gw.verify(network(name), backends=["numpy", "torch", "jax"], derivative="per-example")
    expected = {"unsupported"} if name in WHOLE else {"agree"}
    assert {str(row.verdict) for row in report.rows} == expected, repr(report)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - WHOLE))
def test_they_add_up_to_the_gradient_of_the_batch(name: str) -> None:
    """A law, by NumPy: of a sum over examples their sum, of a mean over examples their mean."""
    problem, interpreter = network(name), registry.interpreter()

    def value(leaves: Any) -> float:
        at = problem.resized(leaves)
        return interpreter.loss(interpreter.forward(at.graph, at.leaves))

    def gradient(graph: Any, leaves: Any) -> Any:
        return interpreter.backward(interpreter.forward(graph, leaves), problem.differentiated)

    alone = [problem.example(number) for number in range(problem.examples)]
    stacked = {path: np.stack([problem.leaves[path]] * len(alone)) for path in problem.differentiated}
    examples = {f"example.{n}.{path}": one.leaves[path] for n, one in enumerate(alone) for path in problem.by_example}
    graph = by_example([one.graph for one in alone], problem.differentiated, problem.by_example)
    parts = gradient(graph, {**problem.leaves, **stacked, **examples})
    combined = getattr(np, reduction_over_examples(problem, value, 2.0**-53))
    for path, whole in gradient(problem.graph, problem.leaves).items():
        assert parts[path].shape == (len(alone), *whole.shape)
        np.testing.assert_allclose(combined(parts[path], axis=0), whole, rtol=1e-10, atol=1e-12)


class Drifting(torch.autograd.Function):
    """tanh, which is slightly another function under vmap: right alone, wrong by example."""

    @staticmethod
    def forward(x: Any) -> Any:
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * (1 - ctx.saved_tensors[0] ** 2)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return torch.tanh(1.001 * x), in_dims[0]


def test_a_rule_that_is_wrong_under_vmap_is_caught() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (Drifting.apply(b["x"] @ p["w"]) ** 2).sum()  # type: ignore[no-untyped-call]

    rng = np.random.default_rng(0)
    point = {"w": rng.normal(size=(3, 2))}, {"x": rng.normal(size=(5, 3))}
    assert gw.verify({"torch": loss}, *point, dtypes="float64"), "its gradient is right"
    found = by_candidate(verified({"torch": loss}, *point))
    assert found["torch [one by one]"] == {"agree"}
    assert not found["torch [vmap]"] & {"agree", "unsupported", "inconclusive"}


@pytest.mark.parametrize(("forgets", "verdict"), [(False, "agree"), (True, "disagree")])
def test_a_custom_batching_rule_of_jax_is_judged(forgets: bool, verdict: str) -> None:
    @jax.custom_batching.custom_vmap
    def slope(y: Any, g: Any) -> Any:
        return g * (1 - y**2)

    @slope.def_vmap
    def of_batch(size: int, batched: Any, y: Any, g: Any) -> Any:
        return (g if forgets else g * (1 - y**2)), True

    @jax.custom_vjp
    def tanh(x: Any) -> Any:
        return jnp.tanh(x)

    tanh.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: (slope(y, g),))

    def loss(p: Any, b: Any) -> Any:
        return jnp.mean(tanh(b["x"] @ p["w"]) ** 2)

    rng = np.random.default_rng(0)
    found = by_candidate(verified({"jax": loss}, {"w": rng.normal(size=(3, 2))}, {"x": rng.normal(size=(4, 3))}))
    assert found == {"jax [vmap]": {verdict}, "jax [one by one]": {"agree"}}


def test_more_examples_than_eight_are_cut_and_the_name_says_so() -> None:
    def loss(p: Any, b: Any) -> Any:
        return ((b["x"] @ p["w"] - b["y"]) ** 2.0).mean()

    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(20, 3)), "y": rng.normal(size=20)}
    report = verified(loss, {"w": rng.normal(size=3)}, batch, backends="numpy", name="line")
    (row,) = report.rows
    assert (row.network, str(row.verdict), row.shape) == ("line[:8]", "agree", (8, 3))


def test_examples_that_interact_have_no_parts() -> None:
    def loss(p: Any, b: Any) -> Any:
        x = b["x"] * p["w"]
        return ((x - x.mean(axis=0)) ** 2.0).mean()

    batch = {"x": np.arange(12.0).reshape(4, 3)}
    (row,) = verified(loss, {"w": np.ones(3)}, batch, backends="numpy").rows
    assert row.verdict == "unsupported"
    assert "neither the sum nor the mean" in row.message


def test_a_batch_without_examples_and_a_graph_of_a_batch_are_refused_by_name() -> None:
    (row,) = verified(network("article"), backends="numpy").rows
    assert "two examples or more" in row.message
    problem = network("mlp")
    graph = gw.capture(
        gw.Candidate("torch", lambda p, b: ((b["x"] @ p["w"]) ** 2).mean()), {"w": np.ones(2)}, {"x": np.ones((3, 2))}
    )
    with pytest.raises(gw.GradwitnessError, match="holds for its whole batch"):
        verified(graph, {"w": np.ones(2)}, {"x": np.ones((3, 2))})
    assert problem.examples > 1


def test_what_is_no_example_is_shared() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (ops.tanh(b["x"] * b["scale"]) * p["w"]).sum()

    batch = {"x": np.arange(8.0).reshape(4, 2) / 10, "scale": np.array([0.5, 2.0])}
    report = verified(loss, {"w": np.ones(2)}, batch, backends=["numpy", "torch", "jax"])
    assert {str(row.verdict) for row in report.rows} == {"agree"}, repr(report)
