"""Plain multilayer perceptrons, deep ones among them, and the linear softmax classifier."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.errors import UnknownName
from gradwitness.networks.data import CLASSES, digits
from gradwitness.networks.initial import alternating, dense, generator
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["ACTIVATIONS", "LOSSES", "deep_relu", "deep_sigmoid", "mlp", "softmax_classifier"]

ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "tanh": ops.tanh,
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "gelu": ops.gelu,
    "silu": ops.silu,
    "softplus": ops.softplus,
    "elu": ops.elu,
}
LOSSES = ("mse", "cross_entropy")


def mlp(
    *,
    batch: int = 5,
    features: int = 7,
    width: int = 20,
    depth: int = 3,
    outputs: int = 4,
    activation: str = "tanh",
    loss: str = "mse",
    seed: int = 0,
) -> Problem:
    """`depth` hidden layers of width and three quarters of it by turns, on normal features.

    Raises UnknownName for an activation that is not in ACTIVATIONS, or a loss not in LOSSES.
    """
    return _perceptron("mlp", batch, [features, *alternating(width, depth), outputs], activation, loss, 1.0, seed)


def deep_sigmoid(
    *, batch: int = 4, features: int = 6, width: int = 12, depth: int = 10, outputs: int = 3, seed: int = 0
) -> Problem:
    """Ten sigmoid layers. A sigmoid's slope is at most 1/4, hence the gain of 4: with 1 the gradient would vanish."""
    return _perceptron(
        "deep_sigmoid", batch, [features, *alternating(width, depth), outputs], "sigmoid", "cross_entropy", 4.0, seed
    )


def deep_relu(
    *, batch: int = 6, features: int = 5, width: int = 16, depth: int = 12, outputs: int = 4, seed: int = 0
) -> Problem:
    """Twelve ReLU layers with weights of variance 2 / fan_in (He et al., arXiv:1502.01852, equation 10)."""
    return _perceptron(
        "deep_relu", batch, [features, *alternating(width, depth), outputs], "relu", "mse", 2.0**0.5, seed
    )


def softmax_classifier(*, batch: int = 7, seed: int = 0) -> Problem:
    """One linear layer from the 64 pixels of a digit to its class. Pixels that are 0 throughout give zero gradients."""
    images, labels = digits(batch)
    params = dense(generator("softmax_classifier", seed), images[0].size, CLASSES)
    return Problem("softmax_classifier", _classify, params, {"images": images, "labels": labels})


def _classify(params: Any, batch: Any) -> Value:
    images = batch["images"]
    logits = ops.linear(images.reshape(images.shape[0], -1), params["weight"], params["bias"])
    return ops.cross_entropy(logits, batch["labels"], reduction="mean")


def _perceptron(name: str, batch: int, sizes: list[int], activation: str, loss: str, gain: float, seed: int) -> Problem:
    """Layers of these sizes, the first being the features and the last the outputs."""
    if activation not in ACTIVATIONS:
        raise UnknownName("activation", activation, ACTIVATIONS)
    if loss not in LOSSES:
        raise UnknownName("loss", loss, LOSSES)
    rng = generator(name, seed)
    gains = [gain] * (len(sizes) - 2) + [1.0]  # the output has no activation to make up for
    layers = [dense(rng, n, m, gain=g) for (n, m), g in zip(pairwise(sizes), gains, strict=True)]
    x = rng.normal(size=(batch, sizes[0]))
    classify = loss == "cross_entropy"
    target = rng.integers(0, sizes[-1], batch) if classify else rng.normal(size=(batch, sizes[-1]))

    def total(params: Any, batch: Any) -> Value:
        hidden = batch["x"]
        for layer in params["layers"][:-1]:
            hidden = ACTIVATIONS[activation](ops.linear(hidden, **layer))
        output = ops.linear(hidden, **params["layers"][-1])
        if classify:
            return ops.cross_entropy(output, batch["target"], reduction="mean")
        return ops.mse(output, batch["target"], reduction="mean", half=False)

    return Problem(name, total, {"layers": layers}, {"x": x, "target": np.asarray(target)})
