"""Perceptrons with residual connections, batch normalisation, layer normalisation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gradwitness import ops
from gradwitness.networks.initial import affine, alternating, dense, generator
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["batchnorm_mlp", "layernorm_mlp", "residual_mlp"]

EPS = 1e-5


def residual_mlp(
    *,
    batch: int = 6,
    features: int = 7,
    width: int = 10,
    hidden: int = 18,
    blocks: int = 3,
    outputs: int = 4,
    seed: int = 0,
) -> Problem:
    """x + down(silu(up(x))), `blocks` times, between two linear layers (He et al., arXiv:1512.03385)."""
    rng = generator("residual_mlp", seed)
    params = {
        "input": dense(rng, features, width),
        "blocks": [{"up": dense(rng, width, hidden), "down": dense(rng, hidden, width)} for _ in range(blocks)],
        "output": dense(rng, width, outputs),
    }
    batch_ = {"x": rng.normal(size=(batch, features)), "target": rng.normal(size=(batch, outputs))}
    return Problem("residual_mlp", _residual, params, batch_)


def _residual(params: Any, batch: Any) -> Value:
    x = ops.linear(batch["x"], **params["input"])
    for block in params["blocks"]:
        x = x + ops.linear(ops.silu(ops.linear(x, **block["up"])), **block["down"])
    return ops.mse(ops.linear(x, **params["output"]), batch["target"], reduction="mean", half=True)


def batchnorm_mlp(
    *, batch: int = 8, features: int = 6, width: int = 20, depth: int = 3, outputs: int = 4, seed: int = 0
) -> Problem:
    """Linear, batch norm, ReLU, `depth` times; cross entropy.

    The linear biases are kept, as people leave them in: batch norm subtracts them again, so their
    true gradient is 0 and what is computed is rounding.
    """
    rng = generator("batchnorm_mlp", seed)
    params = _normalized_layers(rng, [features, *alternating(width, depth)], outputs)
    batch_ = {"x": rng.normal(size=(batch, features)), "labels": rng.integers(0, outputs, batch)}
    return Problem("batchnorm_mlp", _batchnorm, params, batch_)


def _batchnorm(params: Any, batch: Any) -> Value:
    x = batch["x"]
    for layer in params["layers"]:
        x = ops.relu(ops.batch_norm(ops.linear(x, **layer["linear"]), **layer["norm"], eps=EPS))
    return ops.cross_entropy(ops.linear(x, **params["output"]), batch["labels"], reduction="mean")


def layernorm_mlp(
    *, batch: int = 5, features: int = 7, width: int = 16, depth: int = 3, outputs: int = 3, seed: int = 0
) -> Problem:
    """Linear, layer norm, softplus, `depth` times; mean squared error."""
    rng = generator("layernorm_mlp", seed)
    params = _normalized_layers(rng, [features, *alternating(width, depth)], outputs)
    batch_ = {"x": rng.normal(size=(batch, features)), "target": rng.normal(size=(batch, outputs))}
    return Problem("layernorm_mlp", _layernorm, params, batch_)


def _layernorm(params: Any, batch: Any) -> Value:
    x = batch["x"]
    for layer in params["layers"]:
        x = ops.softplus(ops.layer_norm(ops.linear(x, **layer["linear"]), **layer["norm"], eps=EPS))
    return ops.mse(ops.linear(x, **params["output"]), batch["target"], reduction="mean", half=False)


def _normalized_layers(rng: Any, sizes: list[int], outputs: int) -> dict[str, Any]:
    return {
        "layers": [{"linear": dense(rng, n, m), "norm": affine(rng, m)} for n, m in pairwise(sizes)],
        "output": dense(rng, sizes[-1], outputs),
    }
