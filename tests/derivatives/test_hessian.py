"""The whole Hessian, as the frameworks give it: times a direction it is what the product with that is."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gradwitness import ops
from gradwitness.networks import network
from tests.derivatives.found import by_candidate, derivative

verified = partial(derivative, "hessian")
WAYS = {"torch [torch.func.hessian]", "torch [autograd.functional.hessian]", "jax [jax.hessian]"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_framework_agrees(dtype: str) -> None:
    report = verified(network("article"), backends=["numpy", "torch", "jax"], dtypes=dtype)
    assert by_candidate(report) == {label: {"agree"} for label in {"numpy"} | WAYS}, repr(report)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["siamese", "softmax_classifier", "gru"])
def test_networks_agree(name: str) -> None:
    report = verified(network(name), backends=["numpy", "torch", "jax"])
    assert {str(row.verdict) for row in report.rows} == {"agree"}, repr(report)


class Square(torch.autograd.Function):
    """x^2, with a right backward and jvp, and a vmap that takes every entry for the first."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return Product.apply(g[0], ctx.saved_tensors[0])  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *t: Any) -> Any:
        return 2 * t[0] * ctx.saved_tensors[0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return x * x, in_dims[0]


class Product(torch.autograd.Function):
    """2 g x, whose vmap forgets the factor: its users see it in no gradient, and in no product with the Hessian."""

    @staticmethod
    def forward(g: Any, x: Any) -> Any:
        return 2 * g * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *h: Any) -> Any:
        g, x = ctx.saved_tensors
        return 2 * h[0] * x, 2 * h[0] * g

    @staticmethod
    def jvp(ctx: Any, tg: Any, tx: Any) -> Any:
        g, x = ctx.saved_tensors
        return 2 * (tg * x + g * tx)

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Any, x: Any) -> Any:
        moved = [t if d is None else t.movedim(d, 0) for t, d in zip((g, x), in_dims, strict=True)]
        return 2.01 * moved[0] * moved[1], 0


def test_a_rule_that_is_wrong_in_a_batch_alone_is_caught() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (Square.apply(p["w"]) * p["w"]).sum()  # type: ignore[no-untyped-call]

    point = {"w": np.array([0.3, -1.2, 2.0])}
    products = by_candidate(derivative("hvp", {"torch": loss}, point))
    assert products["torch [twice]"] == {"agree"}
    found = by_candidate(verified({"torch": loss}, point))
    assert "disagree" in set().union(*found.values()), found


def test_a_loss_of_ones_own_agrees() -> None:
    def in_torch(p: Any, b: Any) -> Any:
        return (torch.tanh(p["w"] @ b["x"]) ** 2).sum() + (p["v"] ** 3).sum()

    def in_jax(p: Any, b: Any) -> Any:
        return jnp.sum(jnp.tanh(p["w"] @ b["x"]) ** 2) + jnp.sum(p["v"] ** 3)

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(2, 3)), "v": rng.normal(size=2)}
    report = verified({"torch": in_torch, "jax": in_jax}, params, {"x": rng.normal(size=3)})
    assert by_candidate(report) == {label: {"agree"} for label in WAYS}, repr(report)


def test_what_is_too_large_is_refused_with_what_to_do() -> None:
    (row,) = verified(lambda p, b: (ops.tanh(p["w"]) ** 2.0).sum(), {"w": np.ones(4000)}, {}, backends="jax").rows
    assert row.verdict == "unsupported"
    assert 'derivative="hvp"' in row.message
