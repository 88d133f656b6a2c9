"""NumPy, torch, jax and the traced ops under one dialect, so that a loss is written once and runs in each.

What the libraries spell alike goes straight through; what they do not stands in the table of each, under one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

import gradwitness as gw

__all__ = ["FRAMEWORKS", "Framework", "Loss", "Tree", "framework"]

Array = Any
Tree = dict[str, Array]
Loss = Callable[["Framework", Tree, Tree], Array]
FRAMEWORKS = ("numpy", "torch", "jax", "ops")


@dataclass(frozen=True)
class Framework:
    """One array library.

    backend: what a candidate runs on. words: functions by the dialect's name. rule(forward, backward): a function
    whose gradient is `backward(f, cotangent, *inputs)`, a tuple, as an autograd.Function or a custom_vjp.
    gradient(loss): `gradient(params, batch)` by the library's own autodiff; NumPy has none, and takes torch's.
    """

    name: str
    backend: str
    library: ModuleType
    words: Mapping[str, Callable[..., Any]]
    rule: Callable[[Callable[..., Array], Callable[..., tuple[Array, ...]]], Callable[..., Array]]
    gradient: Callable[[Loss], Callable[[Tree, Tree], Tree]]

    def __getattr__(self, name: str) -> Any:
        return self.words[name] if name in self.words else getattr(self.library, name)

    def constant(self, values: Any, like: Array) -> Array:
        """A NumPy array in this library, in the dtype of `like`."""
        return self.cast(self.asarray(np.asarray(values, dtype=np.float64)), dtype_name(like))


def dtype_name(x: Array) -> str:
    """float32 and the like, whatever the library calls it."""
    return str(x.dtype).rpartition(".")[2]


def framework(name: str) -> Framework:
    """By name. Raises KeyError for another."""
    return {"numpy": _numpy, "torch": _torch, "jax": _jax, "ops": _ops}[name]()


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@cache
def _numpy() -> Framework:
    from scipy.special import erf

    def gradient(loss: Loss) -> Callable[[Tree, Tree], Tree]:
        torch = framework("torch")
        by_torch = torch.gradient(loss)

        def of(params: Tree, batch: Tree) -> Tree:
            tensors = ({k: torch.library.tensor(v) for k, v in tree.items()} for tree in (params, batch or {}))
            return {k: v.numpy() for k, v in by_torch(*tensors).items()}

        return of

    words: dict[str, Callable[..., Any]] = {
        "amax": lambda x, axis: np.max(x, axis=axis),
        "softmax": _softmax,
        "sigmoid": _sigmoid,
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x * _sigmoid(x),
        "erf": erf,
        "softplus": lambda x: np.logaddexp(x, 0),
        "cast": lambda x, dtype: x.astype(dtype),
        "detach": lambda x: x,
    }
    return Framework("numpy", "numpy", np, words, lambda forward, backward: _forward_alone(_numpy, forward), gradient)


def _forward_alone(own: Callable[[], Framework], forward: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *inputs: forward(own(), *inputs)


@cache
def _torch() -> Framework:
    import torch
    from torch.nn import functional

    def rule(forward: Callable[..., Array], backward: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Array) -> Array:
                ctx.save_for_backward(*inputs)
                return forward(_torch(), *inputs)

            @staticmethod
            def backward(ctx: Any, *cotangents: Array) -> Any:
                return backward(_torch(), cotangents[0], *ctx.saved_tensors)

        return Rule.apply

    def gradient(loss: Loss) -> Callable[[Tree, Tree], Tree]:
        def of(params: Tree, batch: Tree) -> Tree:
            with torch.enable_grad():
                leaves = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
                value = loss(_torch(), leaves, batch)
                if not value.requires_grad:
                    return {k: torch.zeros_like(v) for k, v in params.items()}
                found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
            return dict(zip(leaves, found, strict=True))

        return of

    words: dict[str, Callable[..., Any]] = {
        "amax": lambda x, axis: torch.amax(x, axis),
        "softmax": functional.softmax,
        "sigmoid": torch.sigmoid,
        "relu": torch.relu,
        "silu": functional.silu,
        "softplus": functional.softplus,
        "cast": lambda x, dtype: x.to(getattr(torch, dtype)),
        "detach": lambda x: x.detach(),
    }
    return Framework("torch", "torch", torch, words, rule, gradient)


@cache
def _jax() -> Framework:
    import jax
    import jax.numpy as jnp

    def rule(forward: Callable[..., Array], backward: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
        function = jax.custom_vjp(lambda *inputs: forward(_jax(), *inputs))
        function.defvjp(
            lambda *inputs: (forward(_jax(), *inputs), inputs),
            lambda inputs, cotangent: tuple(backward(_jax(), cotangent, *inputs)),
        )
        return function

    def gradient(loss: Loss) -> Callable[[Tree, Tree], Tree]:
        return jax.grad(lambda params, batch: loss(_jax(), params, batch))

    words: dict[str, Callable[..., Any]] = {
        "amax": lambda x, axis: jnp.max(x, axis=axis),
        "softmax": jax.nn.softmax,
        "sigmoid": jax.nn.sigmoid,
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
        "erf": jax.scipy.special.erf,
        "softplus": jax.nn.softplus,
        "cast": lambda x, dtype: x.astype(dtype),
        "detach": jax.lax.stop_gradient,
    }
    return Framework("jax", "jax", jnp, words, rule, gradient)


@cache
def _ops() -> Framework:
    """Traced losses; the gradients beside them are torch's."""
    words: dict[str, Callable[..., Any]] = {
        "amax": lambda x, axis: gw.ops.max(x, axis=axis),
        "softmax": lambda x, axis=-1: gw.ops.softmax(x, axis=axis),
        "detach": gw.ops.stop_gradient,
    }
    of_torch = _torch()
    return Framework(
        "ops", "torch", gw.ops, words, lambda forward, backward: _forward_alone(_ops, forward), of_torch.gradient
    )
