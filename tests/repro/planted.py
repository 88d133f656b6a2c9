"""Losses and gradients with a fault each, as users write them. What they refer to has to come along into a script."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

import tests.repro.helpers as tools
from tests.repro.helpers import SCALE, halved

# a lambda with a name is what some of this is about


class Square(torch.autograd.Function):
    """x squared."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return SCALE * g * x + 0.25 * (x > 1)  # the last term is wrong


def torch_loss(params: Any, batch: Any) -> Any:
    hidden = F.silu(batch["x"] @ params["layer"]["w"].T) + params["b"]
    return halved(Square.apply(hidden)).mean()  # type: ignore[no-untyped-call]


@jax.custom_vjp
def softsign(x: jax.Array) -> jax.Array:
    return x / (1 + jnp.abs(x))


def softsign_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return softsign(x), x


def softsign_backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (g / (1 + jnp.abs(x)),)  # should be squared


softsign.defvjp(softsign_forward, softsign_backward)


def jax_loss(params: Any, batch: Any) -> Any:
    return (softsign(batch["x"] @ params["layer"]["w"].T) + params["b"]).mean()


def value(params: Any, batch: Any) -> Any:
    """Named as a function of every script is."""
    hidden = np.tanh(batch["x"] @ params["layer"]["w"].T + params["b"])
    return tools.mean_square(hidden)


def gradient(params: Any, batch: Any) -> Any:
    hidden = np.tanh(batch["x"] @ params["layer"]["w"].T + params["b"])
    g = 2 * hidden * (1 - hidden**2) / hidden.size
    return {"layer": {"w": g.T @ batch["x"]}, "b": g.mean(axis=0)}  # the bias needs a sum


def value_and_gradient(params: Any, batch: Any) -> tuple[Any, Any]:
    return value(params, batch), gradient(params, batch)


def missing_gradient(params: Any, batch: Any) -> Any:
    return {"layer": {"w": gradient(params, batch)["layer"]["w"]}}


def nonfinite_gradient(params: Any, batch: Any) -> Any:
    right = gradient(params, batch)["layer"]["w"]
    return {"layer": {"w": np.where(right > 0, np.nan, right)}, "b": np.zeros(5)}


def scaled(scale: float) -> Callable[..., Any]:
    """A loss that closes over a number, an array and a function, in a lambda beside another lambda."""
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    pair = (lambda x: scale * x, lambda x: scale * Square.apply(x))  # type: ignore[no-untyped-call]
    return lambda params, batch: (pair[1](params["b"]) * weights).sum()


class Line(NamedTuple):
    slope: Any
    offset: Any


def line_loss(params: Any, batch: Any) -> Any:
    return np.sum(np.exp(params.slope * batch["x"][:, 0] + params.offset))


def line_gradient(params: Any, batch: Any) -> Any:
    y = np.exp(params.slope * batch["x"][:, 0] + params.offset)
    return Line(np.sum(y), np.sum(y))  # the first lacks the factor x


def logits(params: Any, batch: Any) -> Any:
    return np.tanh(batch["x"] @ params["layer"]["w"].T)


def logits_gradient(params: Any, batch: Any, cotangent: Any) -> Any:
    return {"layer": {"w": (cotangent * (1 - logits(params, batch))).T @ batch["x"]}}  # the square is missing


def by_x(params: Any, batch: Any) -> Any:
    return {"x": np.zeros_like(batch["x"])}


square = functools.partial(lambda x, power: x**power, power=2)


def partial_loss(params: Any, batch: Any) -> Any:
    return np.sum(square(params["b"]))


def partial_gradient(params: Any, batch: Any) -> Any:
    return {"layer": {"w": np.zeros((5, 8))}, "b": params["b"]}
