"""The network of the article: small enough to be done by hand, with every number fixed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.ops import Value
from gradwitness.problem import Problem
from gradwitness.published import Printed, PrintedNumber, PrintedRatio

__all__ = ["PUBLISHED", "article"]

# What the text that the example comes from printed, where the truth is another.
PUBLISHED: tuple[Printed, ...] = (
    PrintedNumber("loss", "0.4038"),
    PrintedNumber("dL/dw_out, neuron 2", "-0.4963", "output.weight", (0, 1)),
    PrintedNumber("dL/dW, input 1 to neuron 2", "0.0334", "hidden.weight", (0, 1)),
    PrintedNumber("dL/dW, input 2 to neuron 2", "0.0534", "hidden.weight", (1, 1)),
    PrintedRatio("|dL/dw_out| / |dL/dW|", ("5", "10"), larger="output.weight", smaller="hidden.weight"),
)


def article(*, seed: int = 0) -> Problem:
    """Two inputs, two sigmoid neurons, one linear output; half the squared error of one example.

    `hidden.weight` has a row per input and a column per neuron, as the article prints it, so the
    layer is x @ weight + bias. `seed` is taken, as by every network, and changes nothing.
    """
    params = {
        "hidden": {"weight": np.array([[0.3, 0.5], [-0.1, 0.2]]), "bias": np.array([0.1, -0.2])},
        "output": {"weight": np.array([[0.4, -0.3]]), "bias": np.array([0.05])},
    }
    batch = {"x": np.array([[0.5, 0.8]]), "target": np.array([[1.0]])}
    return Problem("article", _loss, params, batch)


def _loss(params: Any, batch: Any) -> Value:
    hidden = ops.sigmoid(batch["x"] @ params["hidden"]["weight"] + params["hidden"]["bias"])
    y = ops.linear(hidden, params["output"]["weight"], params["output"]["bias"])
    return ops.mse(y, batch["target"], reduction="sum", half=True)
