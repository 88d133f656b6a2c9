"""Losses, in jax: the compositions of optax.losses, but for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["FUNCTIONS"]

_REDUCTIONS: dict[str, Callable[..., Any]] = {"mean": jnp.mean, "sum": jnp.sum}


def _mse(prediction: Any, target: Any, *, reduction: str, half: bool) -> jax.Array:
    loss: jax.Array = _REDUCTIONS[reduction](jnp.square(prediction - target))
    return loss / 2 if half else loss


def _huber(prediction: Any, target: Any, *, delta: float, reduction: str) -> jax.Array:
    """As optax.huber_loss: a quadratic and a linear part that add up."""
    error = jnp.abs(prediction - target)
    quadratic = jnp.minimum(error, delta)
    total: jax.Array = _REDUCTIONS[reduction](0.5 * quadratic**2 + delta * (error - quadratic))
    return total


def _cross_entropy(
    logits: jax.Array, labels: jax.Array, *, reduction: str, label_smoothing: float, ignore_index: int
) -> jax.Array:
    kept = labels != ignore_index
    log_probabilities = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probabilities, jnp.where(kept, labels, 0)[:, None], axis=1)[:, 0]
    losses = -(1 - label_smoothing) * picked - label_smoothing * jnp.mean(log_probabilities, axis=1)
    total = jnp.sum(jnp.where(kept, losses, 0.0))
    return total / jnp.sum(kept) if reduction == "mean" else total


def _binary_cross_entropy_with_logits(logits: Any, targets: Any, *, reduction: str) -> jax.Array:
    """Not as optax.sigmoid_binary_cross_entropy, whose derivative by a target is a difference of two logarithms: it
    keeps no digit of a small logit."""
    losses = jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    total: jax.Array = _REDUCTIONS[reduction](losses)
    return total


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mse": _mse,
    "huber": _huber,
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
}
