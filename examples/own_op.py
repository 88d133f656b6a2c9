"""An op of one's own in three steps: swish(x) = x sigmoid(beta x) (Ramachandran et al., arXiv:1710.05941)."""

from typing import Any

import jax
import numpy as np
import torch

import gradwitness as gw
from gradwitness.own_ops import Spec, real, sample, tails


# 1. Its shape rule, and NumPy's forward and vjp, by hand.
def swish(x: Spec, *, beta: float = 1.0) -> Spec:
    """x * sigmoid(beta * x)."""
    return x


def forward(x: Any, *, beta: float) -> Any:
    return x / (1 + np.exp(-beta * x))


def vjp(g: Any, y: Any, x: Any, *, beta: float) -> Any:
    s = 1 / (1 + np.exp(-beta * x))
    return g * (s + beta * y * (1 - s))


# 2. What the frameworks run.
def in_torch(x: torch.Tensor, *, beta: float) -> torch.Tensor:
    return x * torch.sigmoid(beta * x)


def in_jax(x: jax.Array, *, beta: float) -> jax.Array:
    return x * jax.nn.sigmoid(beta * x)


def define() -> Any:
    return gw.define_op(
        swish,
        rounding="rounded",
        regions=tails(-3.0, 3.0),
        samples=[sample(real(2, 3)), sample(real(7, scale=3.0), beta=1.5), sample(real(2, 1, 4), beta=0.3)],
        numpy=(forward, vjp),
        torch=in_torch,
        jax=in_jax,
    )


# 3. Each held against the gradient in 256 bits.
if __name__ == "__main__":
    report = gw.verify_op(define(), backends=("numpy", "torch", "jax"))
    print(report.table())
    raise SystemExit(not report)
