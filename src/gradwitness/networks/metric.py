"""Metric learning: one tower, used three times."""

from __future__ import annotations

from typing import Any

from gradwitness import ops
from gradwitness.networks.initial import dense, generator
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["siamese"]


def siamese(
    *,
    batch: int = 6,
    features: int = 9,
    width: int = 15,
    outputs: int = 4,
    margin: float = 0.7,
    seed: int = 0,
) -> Problem:
    """softplus(margin + |a - p| - |a - n|), averaged, for the embeddings of anchors, positives, negatives.

    The three embeddings share every parameter, whose cotangents come from three places. The smooth
    form of the triplet loss of Schroff et al., arXiv:1503.03832, section 3.1, on distances not squared.
    """
    rng = generator("siamese", seed)
    params = {"hidden": dense(rng, features, width), "output": dense(rng, width, outputs)}
    anchor = rng.normal(size=(batch, features))
    data = {
        "anchor": anchor,
        "positive": anchor + 0.6 * rng.normal(size=(batch, features)),
        "negative": rng.normal(size=(batch, features)),
    }

    def loss(params: Any, batch: Any) -> Value:
        anchor, positive, negative = (_tower(params, batch[role]) for role in ("anchor", "positive", "negative"))
        near, far = ops.norm(anchor - positive, axis=1), ops.norm(anchor - negative, axis=1)
        return ops.softplus(margin + near - far).mean()

    return Problem("siamese", loss, params, data)


def _tower(params: Any, x: Value) -> Value:
    """Embeddings of x (batch, features), on the unit sphere: there the last bias, too, tells in their differences."""
    embedded = ops.linear(ops.tanh(ops.linear(x, **params["hidden"])), **params["output"])
    return embedded / ops.norm(embedded, axis=1, keepdims=True)
