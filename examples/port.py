"""A PyTorch network ported to JAX, with a layout error planted: which parameter it is in, and what mends it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness.port import PortReport


def network() -> nn.Module:
    """Its second matrix is square: by its shape nobody could tell which way round it is."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


def torch_loss(module: Any, batch: Any) -> torch.Tensor:
    """As in training."""
    return F.mse_loss(module(batch["x"]), batch["y"])


def jax_loss(params: Any, batch: Any, planted: bool = False) -> Any:
    """The port, with kernels of (in, out), and what it computes on the way."""
    x = seen = batch["x"] @ params["linear1"]["kernel"] + params["linear1"]["bias"]
    x = (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    x = jax.nn.gelu(x * params["norm"]["scale"] + params["norm"]["bias"], approximate=False)
    kernel = params["linear2"]["kernel"].T if planted else params["linear2"]["kernel"]
    x = second = x @ kernel + params["linear2"]["bias"]
    x = jnp.tanh(second) @ params["linear3"]["kernel"] + params["linear3"]["bias"]
    return jnp.mean((x - batch["y"]) ** 2), {"linear1": seen, "linear2": second}


def run(planted: bool) -> PortReport:
    """Only names and shapes of jax's parameters count: torch's values are converted."""
    shapes = {"linear1": (3, 6), "linear2": (6, 6), "linear3": (6, 2)}
    params: Any = {name: {"kernel": np.zeros(s), "bias": np.zeros(s[1])} for name, s in shapes.items()}
    params["norm"] = {"scale": np.zeros(6), "bias": np.zeros(6)}
    draw = np.random.default_rng(0).normal
    batch = {"x": draw(size=(8, 3)), "y": draw(size=(8, 2))}
    loss = lambda params, batch: jax_loss(params, batch, planted)  # noqa: E731  # the fault is chosen here
    return gw.verify_port(network(), loss, torch_loss=torch_loss, jax_params=params, batch=batch)


if __name__ == "__main__":
    wrong, right = run(planted=True), run(planted=False)
    print(f"{wrong!r}\n\n{right.table()}")
    raise SystemExit(bool(wrong) or not right)
