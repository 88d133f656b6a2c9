"""An mlp in torch whose backward takes longer on request: `gradwitness bench benchmarks/slowed.py:problem`.

The environment variable SLOWED holds the seconds that are added, of busy waiting in a backward of its own.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

__all__ = ["SECONDS", "problem"]

SECONDS = "SLOWED"
BATCH, FEATURES, WIDTH = 128, 64, 256


class Waiting(torch.autograd.Function):
    """The identity; its backward waits."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        until = time.perf_counter() + float(os.environ.get(SECONDS, "0"))
        while time.perf_counter() < until:
            pass
        return g


def problem() -> Any:
    """(candidates, params, batch), for `gradwitness bench`."""
    draw = np.random.default_rng(0).standard_normal
    params = {"first": draw((FEATURES, WIDTH)) / 8, "second": draw((WIDTH, WIDTH)) / 16, "last": draw((WIDTH, 1)) / 16}
    waiting: Any = Waiting.apply

    def loss(p: Any, b: Any) -> Any:
        hidden = torch.tanh(torch.tanh(b["x"] @ p["first"]) @ p["second"])
        return (waiting(hidden @ p["last"]) ** 2).mean()

    return {"torch": loss}, params, {"x": draw((BATCH, FEATURES))}
