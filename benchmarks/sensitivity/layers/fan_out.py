"""What is used more than once, so that its gradient is a sum over paths."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["GatedUnit", "Residual", "Siamese", "TiedAutoencoder"]


class Residual(Layer):
    """x + tanh(x w^T)."""

    floats = {"x": "ni", "w": "ii"}
    sizes = {"n": 9, "i": 8}
    wide = {"n": 20, "i": 16}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w = inputs
        h = xp.tanh(x @ w.T)
        return x + h, (x, w, h)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, w, h = saved
        da = g * (1 - h**2)
        dx = g + da @ w
        return dx, da.T @ x


class TiedAutoencoder(Layer):
    """tanh(x w^T) w: one weight encodes and decodes."""

    floats = {"x": "ni", "w": "hi"}
    sizes = {"n": 9, "i": 8, "h": 5}
    wide = {"n": 20, "i": 16, "h": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w = inputs
        h = xp.tanh(x @ w.T)
        return h @ w, (x, w, h)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, w, h = saved
        da = (g @ w.T) * (1 - h**2)
        dw = h.T @ g + da.T @ x
        return da @ w, dw


class Siamese(Layer):
    """The same dense layer run on two inputs, and the difference of what comes out."""

    floats = {"x": "ni", "x2": "ni", "w": "oi", "b": "o"}
    data = ("x", "x2")
    sizes = {"n": 9, "i": 8, "o": 5}
    wide = {"n": 20, "i": 16, "o": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, x2, w, b = inputs
        h = xp.tanh(x @ w.T + b)
        h2 = xp.tanh(x2 @ w.T + b)
        return h - h2, (x, x2, w, h, h2)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, x2, w, h, h2 = saved
        da = g * (1 - h**2)
        da2 = -g * (1 - h2**2)
        dx, dx2 = da @ w, da2 @ w
        dw = da.T @ x + da2.T @ x2
        db = (da + da2).sum(axis=0)
        return dx, dx2, dw, db


class GatedUnit(Layer):
    """silu(x w^T) * (x wv^T) (Shazeer 2020)."""

    floats = {"x": "ni", "w": "oi", "wv": "oi"}
    sizes = {"n": 9, "i": 8, "o": 6}
    wide = {"n": 20, "i": 16, "o": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w, wv = inputs
        a, v = x @ w.T, x @ wv.T
        s = 0.5 + 0.5 * xp.tanh(0.5 * a)
        return a * s * v, (x, w, wv, a, s, v)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, w, wv, a, s, v = saved
        da = g * v * (s + a * s * (1 - s))
        dv = g * a * s
        dx = da @ w + dv @ wv
        return dx, da.T @ x, dv.T @ x
