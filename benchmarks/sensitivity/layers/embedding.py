"""Embeddings: what is looked up by an integer."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(Layer):
    """A row of a table for each token, none for the padding (token 0), and one for its position."""

    floats = {"table": "vd", "position": "td"}
    integers = {"tokens": "nt|v"}
    data = ("table",)
    sizes = {"n": 6, "t": 5, "v": 7, "d": 4}  # tokens repeat, as there are more of them than rows
    wide = {"n": 8, "t": 9, "v": 30, "d": 8}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        table, position, tokens = inputs
        is_token = (tokens > 0)[..., None]
        return xp.where(is_token, table[tokens], 0.0) + position, (table, is_token, tokens)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        table, is_token, tokens = saved
        rows = xp.where(is_token, g, 0.0)
        dtable = xp.add_at(table.shape[0], tokens, rows)
        dposition = g.sum(axis=0)
        return dtable, dposition


class EmbeddingBag(Layer):
    """The mean of the rows of a few tokens, weighted."""

    floats = {"table": "vd", "weight": "nt"}
    integers = {"tokens": "nt|v"}
    data = ("table",)
    sizes = {"n": 6, "t": 5, "v": 7, "d": 4}
    wide = {"n": 8, "t": 9, "v": 30, "d": 8}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        table, weight, tokens = inputs
        return (table[tokens] * weight[..., None]).mean(axis=1), (table, weight, tokens)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        table, weight, tokens = saved
        rows = g[:, None, :] / tokens.shape[1]
        dtable = xp.add_at(table.shape[0], tokens, rows * weight[..., None])
        dweight = (table[tokens] * rows).sum(axis=-1)
        return dtable, dweight
