"""A layer as its users have it: a torch.autograd.Function, a jax.custom_vjp, or two NumPy functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch

import gradwitness as gw
from benchmarks.sensitivity.arrays import NUMPY, jax_namespace, torch_namespace
from benchmarks.sensitivity.cells import Cell
from benchmarks.sensitivity.layers import Layer

__all__ = [
    "arguments",
    "autograd_candidate",
    "custom_vjp_candidate",
    "function_candidate",
    "jax_function",
    "layer_inputs",
    "numpy_candidate",
    "torch_function",
    "wide",
]


def torch_function(layer: Layer) -> Callable[..., Any]:
    """`function(*inputs)`, whose backward is the layer's. What is saved stays with its own call."""
    xp, floats = torch_namespace(), len(layer.floats)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            y, ctx.saved = layer.forward(xp, *inputs)
            return y

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            return (*layer.backward(xp, ctx.saved, g[0]), *[None] * (len(ctx.needs_input_grad) - floats))

    return Function.apply


def jax_function(layer: Layer, integers: tuple[Any, ...]) -> Callable[..., Any]:
    """`function(*floats)`, whose vjp is the layer's."""
    xp = jax_namespace()

    def forward(*floats: Any) -> Any:
        return layer.forward(xp, *floats, *integers)

    function = jax.custom_vjp(lambda *floats: forward(*floats)[0])
    function.defvjp(forward, lambda saved, g: tuple(layer.backward(xp, saved, g)))
    return function


def arguments(cell: Cell) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, batch) of the cell's problem: every floating input is a parameter."""
    return dict(cell.floats), {**cell.integers, "cotangent": cell.cotangent}


def function_candidate(layer: Layer) -> gw.Candidate:
    """A loss in torch that uses the layer as a torch.autograd.Function."""
    function = torch_function(layer)

    def loss(params: Any, batch: Any) -> Any:
        return (function(*layer_inputs(layer, params, batch)) * batch["cotangent"]).sum()

    return gw.Candidate("torch", loss)


def custom_vjp_candidate(layer: Layer) -> gw.Candidate:
    """A loss in jax that uses the layer as a jax.custom_vjp."""

    def loss(params: Any, batch: Any) -> Any:
        floats, integers = [params[name] for name in layer.floats], [batch[name] for name in layer.integers]
        return (jax_function(layer, tuple(integers))(*floats) * batch["cotangent"]).sum()

    return gw.Candidate("jax", loss)


def autograd_candidate(layer: Layer) -> gw.Candidate:
    """The same loss in torch, the layer's forward pass differentiated by autograd."""

    def loss(params: Any, batch: Any) -> Any:
        return (layer.forward(torch_namespace(), *layer_inputs(layer, params, batch))[0] * batch["cotangent"]).sum()

    return gw.Candidate("torch", loss)


def numpy_candidate(layer: Layer) -> gw.Candidate:
    """The same loss in NumPy with the layer's backward pass as its gradient."""

    def loss(params: Any, batch: Any) -> Any:
        return np.sum(layer.forward(NUMPY, *layer_inputs(layer, params, batch))[0] * batch["cotangent"])

    def gradient(params: Any, batch: Any) -> Any:
        _, saved = layer.forward(NUMPY, *layer_inputs(layer, params, batch))
        return dict(zip(layer.floats, layer.backward(NUMPY, saved, batch["cotangent"]), strict=True))

    return gw.Candidate("numpy", loss, gradient=gradient)


def layer_inputs(layer: Layer, params: Any, batch: Any) -> list[Any]:
    """What the layer takes, out of the problem's params and batch."""
    return [params[name] for name in layer.floats] + [batch[name] for name in layer.integers]


@contextlib.contextmanager
def wide(dtype: str) -> Iterator[None]:
    """jax in float64, if that is the dtype."""
    with jax.enable_x64(dtype == "float64"):
        yield
