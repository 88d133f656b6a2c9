"""Dense layers."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["Dense", "Perceptron"]


class Dense(Layer):
    """x w^T + b."""

    floats = {"x": "ni", "w": "oi", "b": "o"}
    sizes = {"n": 16, "i": 12, "o": 9}
    wide = {"n": 24, "i": 40, "o": 25}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w, b = inputs
        return x @ w.T + b, (x, w)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, w = saved
        dx = g @ w
        dw = g.T @ x
        db = g.sum(axis=0)
        return dx, dw, db


class Perceptron(Layer):
    """Two dense layers, a ReLU between them."""

    floats = {"x": "ni", "w": "hi", "b": "h", "wo": "oh", "bo": "o"}
    sizes = {"n": 12, "i": 7, "h": 10, "o": 5}
    wide = {"n": 24, "i": 16, "h": 32, "o": 10}
    smooth = False

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w, b, wo, bo = inputs
        a = x @ w.T + b
        h = xp.where(a > 0, a, 0.0)
        return h @ wo.T + bo, (x, w, a, h, wo)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, w, a, h, wo = saved
        dh = g @ wo
        da = xp.where(a > 0, dh, 0.0)
        dx = da @ w
        dw = da.T @ x
        db = da.sum(axis=0)
        dwo = g.T @ h
        dbo = g.sum(axis=0)
        return dx, dw, db, dwo, dbo
