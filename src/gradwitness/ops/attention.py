"""Attention over (batch, heads, time, depth), and dropout with its mask given as data."""

from __future__ import annotations

import math

import numpy as np

from gradwitness.ops.arrays import transpose
from gradwitness.ops.elementwise import exp, stop_gradient, where
from gradwitness.ops.reductions import max as maximum_over
from gradwitness.ops.samples import boolean, real, sample
from gradwitness.ops.shapes import broadcast, expect, expect_dtype
from gradwitness.ops.value import BOOL, FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import Regions, op

# Far below any score, yet finite in every dtype: a masked weight is set to 0 afterwards in any case.
_MASKED_SCORE = -30000.0


def _attention(
    query: Value, key: Value, value: Value, attn_mask: Value | None, *, is_causal: bool, scale: float | None
) -> Value:
    axes = (*range(key.ndim - 2), key.ndim - 1, key.ndim - 2)
    scores = query @ transpose(key, axes=axes) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    mask: Value | np.ndarray | None = attn_mask
    if is_causal:
        mask = np.tri(query.shape[-2], key.shape[-2], dtype=bool)
    if mask is not None:
        scores = where(mask, scores, _MASKED_SCORE)
    weights = exp(scores - stop_gradient(maximum_over(scores, axis=-1, keepdims=True)))
    if mask is None:
        return weights / weights.sum(-1, keepdims=True) @ value
    weights = where(mask, weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    return weights / where(total > 0.0, total, 1.0) @ value


@op(
    samples=[
        sample(real(2, 3, 4, 5), real(2, 3, 6, 5), real(2, 3, 6, 2)),
        sample(real(1, 2, 5, 3), real(1, 2, 5, 3), real(1, 2, 5, 3), None, is_causal=True),
        sample(real(2, 1, 3, 4), real(2, 1, 5, 4), real(2, 1, 5, 4), boolean(2, 1, 3, 5)),
        sample(real(2, 2, 3, 4), real(2, 2, 3, 4), real(2, 2, 3, 4), boolean(3, 3), scale=0.3),
        sample(real(1, 2, 2, 3), real(1, 2, 4, 3), real(1, 2, 4, 2), boolean(4)),
    ],
    definition=_attention,
    regions=Regions(
        at=lambda is_causal, scale: (0.5,),
        of=lambda query, key, value, attn_mask, *, is_causal, scale: attn_mask,
        names=("at a masked position", "at one that is not masked"),
    ),
)
def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Spec:
    """softmax(query key^T * scale) value, with scale 1 / sqrt(depth) unless given.

    query (B, H, T, D), key (B, H, S, D), value (B, H, S, E); the boolean attn_mask, broadcast to
    (B, H, T, S), is True where attention is allowed; is_causal allows position s <= t. A row in
    which nothing is allowed gives 0. Vaswani et al., arXiv:1706.03762, equation 1.
    """
    expect_dtype(FLOAT, query=query, key=key, value=value)
    expect(query.ndim == key.ndim == value.ndim == 4, "query, key and value must be (batch, heads, time, depth)")
    expect(query.shape[-1] == key.shape[-1], f"depths of query and key differ: {query.shape[-1]} and {key.shape[-1]}")
    expect(key.shape[-2] == value.shape[-2], f"lengths of key and value differ: {key.shape[-2]} and {value.shape[-2]}")
    expect(query.shape[:2] == key.shape[:2] == value.shape[:2], "batch and heads must be equal")
    scores = Spec((*query.shape[:-1], key.shape[-2]))
    if attn_mask is not None:
        expect_dtype(BOOL, attn_mask=attn_mask)
        expect(not is_causal, "give attn_mask or is_causal=True, not both")
        expect(broadcast(attn_mask, scores) == scores.shape, f"attn_mask must broadcast to {list(scores.shape)}")
    return Spec((*query.shape[:-1], value.shape[-1]))


def _dropout(x: Value, mask: Value, *, p: float) -> Value:
    return where(mask, x, 0.0) * (1 / (1 - p))


@op(
    samples=[
        sample(real(3, 4), boolean(3, 4), p=0.4),
        sample(real(2, 3, 2), boolean(2, 3, 2), p=0.25),
        sample(real(6), boolean(6), p=0.5),
    ],
    definition=_dropout,
    regions=Regions(at=lambda p: (0.5,), of=lambda x, mask, p: mask, names=("at what is dropped", "at what is kept")),
)
def dropout(x: Operand, mask: Operand, *, p: float) -> Spec:
    """x / (1 - p) where the boolean mask keeps it, else 0. The mask is data, so that every backend drops the same."""
    expect_dtype(FLOAT, x=x)
    expect_dtype(BOOL, mask=mask)
    expect(mask.shape == x.shape, "the mask must have the shape of x")
    expect(0 <= p < 1, f"p must lie in [0, 1), got {p}")
    return Spec(x.shape)
