"""Softmax and attention."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer, softmax

__all__ = ["Attention", "Softmax"]


class Softmax(Layer):
    """Over the last axis."""

    floats = {"x": "ni"}
    sizes = {"n": 9, "i": 9}
    wide = {"n": 20, "i": 20}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        p = softmax(xp, x)
        return p, p

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        p = saved
        dot = (g * p).sum(axis=-1)[..., None]
        return (p * (g - dot),)


class Attention(Layer):
    """Causal scaled dot-product attention; queries, keys and values NTD (Vaswani et al. 2017)."""

    floats = {"q": "ntd", "k": "ntd", "v": "ntd"}
    data = ("q", "k", "v")
    sizes = {"n": 2, "t": 6, "d": 4}
    wide = {"n": 3, "t": 9, "d": 8}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        q, k, v = inputs
        scores = xp.einsum("ntd,nsd->nts", q, k) / q.shape[-1] ** 0.5
        p = softmax(xp, xp.where(xp.lower_triangle(q.shape[1]), scores, -float("inf")))
        return p @ v, (q, k, v, scores)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        q, k, v, scores = saved
        scale = q.shape[-1] ** -0.5
        mask = xp.lower_triangle(q.shape[1])
        p = softmax(xp, xp.where(mask, scores, -float("inf")))
        dp = xp.einsum("ntd,nsd->nts", g, v)
        ds = p * (dp - (dp * p).sum(axis=-1)[..., None])
        dq = xp.einsum("nts,nsd->ntd", ds, k) * scale
        dk = xp.einsum("nts,ntd->nsd", ds, q) * scale
        dv = xp.einsum("nts,ntd->nsd", p, g)
        return dq, dk, dv
