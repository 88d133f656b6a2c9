"""Models in torch, and their ports to jax, right and with one fault planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness.port import PortReport

RNG = np.random.default_rng(0)
ROWS = {"x": RNG.standard_normal((7, 3)), "y": RNG.standard_normal((7, 2))}
IMAGES = {"x": RNG.standard_normal((5, 3, 6, 7)), "y": RNG.standard_normal((5, 2))}
SERIES = {"x": RNG.standard_normal((2, 5, 3)), "y": RNG.standard_normal((2, 5, 2))}


def seeded(make: Callable[[], Any]) -> Any:
    """A module with the same parameters in every run; no scale is 1 and no shift is 0."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = make()
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.1 * torch.randn_like(p))
        return module


def squared(module: Any, batch: Any) -> torch.Tensor:
    return F.mse_loss(module(batch["x"]), batch["y"])


def zeros(**shapes: Any) -> Any:
    """A tree of parameters that has shapes alone."""
    return {name: zeros(**s) if isinstance(s, dict) else np.zeros(s) for name, s in shapes.items()}


def port(module: Any, loss: Any, params: Any, batch: Any, **how: Any) -> PortReport:
    given = {"torch_loss": squared} if isinstance(module, nn.Module) else {}
    return gw.verify_port(module, loss, jax_params=params, batch=batch, **{**given, **how})


# A perceptron with a layer norm and gelu; its second matrix is square.


def perceptron() -> nn.Sequential:
    layers = (nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))
    return nn.Sequential(*layers)


PERCEPTRON = zeros(
    Dense_0={"kernel": (3, 5), "bias": 5},
    LayerNorm_0={"scale": 5, "bias": 5},
    Dense_1={"kernel": (5, 5), "bias": 5},
    Dense_2={"kernel": (5, 2), "bias": 2},
)


def perceptron_in_jax(
    *,
    eps: float = 1e-5,
    ddof: int = 0,
    gelu: Any = None,
    transposed: bool = False,
    shown: bool = True,
    sums: bool = False,
) -> Any:
    gelu = gelu or (lambda x: jax.nn.gelu(x, approximate=False))

    def loss(params: Any, batch: Any) -> Any:
        first, norm, second, third = (params[name] for name in ("Dense_0", "LayerNorm_0", "Dense_1", "Dense_2"))
        seen = {}
        x = seen["Dense_0"] = batch["x"] @ first["kernel"] + first["bias"]
        x = (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True, ddof=ddof) + eps)
        x = seen["LayerNorm_0"] = x * norm["scale"] + norm["bias"]
        x = gelu(x)
        x = seen["Dense_1"] = x @ (second["kernel"].T if transposed else second["kernel"]) + second["bias"]
        errors = (jnp.tanh(x) @ third["kernel"] + third["bias"] - batch["y"]) ** 2
        value = errors.sum() if sums else errors.mean()
        return (value, seen) if shown else value

    return loss


# A convolution, a batch norm, and a linear layer that reads flattened images.


def convolution() -> nn.Sequential:
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 2), nn.Tanh(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(24, 2))


CONVOLUTION = zeros(
    conv1={"w": (3, 3, 3, 4), "b": 4},
    bn={"scale": 4, "offset": 4},
    conv2={"w": (2, 2, 4, 2), "b": 2},
    fc={"w": (24, 2), "b": 2},
)
STATISTICS = zeros(bn={"mean": 4, "var": 4})


def convolve(x: Any, layer: Any) -> Any:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "VALID", dimension_numbers=dimensions) + layer["b"]


def convolution_in_jax(
    *, train: bool = True, new: float = 0.1, ddof: int = 1, eps: float = 1e-5, channels_first: bool = True
) -> Any:
    """In train mode it shows the running statistics afterwards, which begin at 0 and 1."""

    def loss(params: Any, batch: Any) -> Any:
        bn = params["bn"]
        x = convolve(jnp.moveaxis(batch["x"], 1, -1), params["conv1"])
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (bn["mean"], bn["var"])
        running = {"mean": new * mean, "var": 1 - new + new * x.var((0, 1, 2), ddof=ddof)}
        x = jnp.tanh((x - mean) / jnp.sqrt(var + eps) * bn["scale"] + bn["offset"])
        x = jnp.tanh(convolve(x, params["conv2"]))
        x = (jnp.moveaxis(x, -1, 1) if channels_first else x).reshape(len(x), -1)
        value = jnp.mean((x @ params["fc"]["w"] + params["fc"]["b"] - batch["y"]) ** 2)
        return (value, {"bn": running}) if train else value

    return loss


# Recurrent layers.


class Recurrent(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.rnn, self.out = layer(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.rnn(x)[0])


LSTM = zeros(lstm={"w": (7, 16), "b": 16}, linear={"w": (4, 2), "b": 2})  # as haiku has it


def lstm_in_jax(order: str) -> Any:
    """Input and hidden state share a matrix, whose gates have this order."""

    def loss(params: Any, batch: Any) -> Any:
        h = c = jnp.zeros((2, 4), batch["x"].dtype)
        outputs = []
        for t in range(5):
            stacked = jnp.concatenate([batch["x"][:, t], h], axis=1) @ params["lstm"]["w"] + params["lstm"]["b"]
            gates = dict(zip(order, jnp.split(stacked, 4, axis=1), strict=True))
            c = jax.nn.sigmoid(gates["f"]) * c + jax.nn.sigmoid(gates["i"]) * jnp.tanh(gates["g"])
            h = jax.nn.sigmoid(gates["o"]) * jnp.tanh(c)
            outputs.append(h)
        y = jnp.stack(outputs, axis=1) @ params["linear"]["w"] + params["linear"]["b"]
        return jnp.mean((y - batch["y"]) ** 2)

    return loss
