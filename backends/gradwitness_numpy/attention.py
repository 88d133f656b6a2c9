"""Rules of attention and dropout."""

from __future__ import annotations

import math

import numpy as np

from gradwitness_numpy.numerics import rounded
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step
from gradwitness_numpy.softmax import softmax_vjp


def _mask(query: Array, key: Array, attn_mask: Array | None, is_causal: bool) -> Array | None:
    return np.tri(query.shape[-2], key.shape[-2], dtype=bool) if is_causal else attn_mask


def _scale(query: Array, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def _attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None, *, is_causal: bool, scale: float | None
) -> tuple[Array, Array]:
    scores = query @ np.swapaxes(key, -1, -2) * _scale(query, scale)
    mask = _mask(query, key, attn_mask, is_causal)
    if mask is None:
        weights = np.exp(scores - rounded(scores).max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
    else:
        weights = _masked_softmax(scores, mask)
    return weights @ value, weights


def _masked_softmax(scores: Array, mask: Array) -> Array:
    """softmax over what the mask allows; a row in which nothing is allowed is 0."""
    peak = np.max(rounded(scores), axis=-1, keepdims=True, where=mask, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    weights = np.where(mask, np.exp(np.where(mask, scores - peak, 0.0)), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def _attention_vjp(g: Array, step: Step) -> Cotangents:
    query, key, value, _ = step.operands
    weights, scale = step.saved, _scale(query, step.attributes["scale"])
    by_value = np.swapaxes(weights, -1, -2) @ g if step.needs[2] else None
    if not (step.needs[0] or step.needs[1]):
        return None, None, by_value, None
    by_scores = softmax_vjp(g @ np.swapaxes(value, -1, -2), weights, axis=-1) * scale
    return by_scores @ key, np.swapaxes(by_scores, -1, -2) @ query, by_value, None


def _dropout_vjp(g: Array, step: Step) -> Cotangents:
    return np.where(step.operands[1], g, 0.0) * (1 / (1 - step.attributes["p"])), None


RULES: dict[str, Rule] = {
    "scaled_dot_product_attention": Rule(_attention, _attention_vjp, saves=True),
    "dropout": Rule(lambda x, mask, *, p: np.where(mask, x, 0.0) * (1 / (1 - p)), _dropout_vjp),
}
