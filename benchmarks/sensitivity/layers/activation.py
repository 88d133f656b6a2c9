"""Activations, element by element."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["Elu", "Gelu", "LeakyRelu", "Softplus"]


class LeakyRelu(Layer):
    """x where it is positive, a tenth of it elsewhere."""

    floats = {"x": "ni"}
    sizes = {"n": 14, "i": 11}
    wide = {"n": 32, "i": 20}
    smooth = False

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        return xp.where(x > 0, x, 0.1 * x), x

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x = saved
        return (xp.where(x > 0, g, 0.1 * g),)


class Elu(Layer):
    """x where it is positive, exp(x) - 1 elsewhere (Clevert, Unterthiner and Hochreiter 2016)."""

    floats = {"x": "ni"}
    sizes = {"n": 14, "i": 11}
    wide = {"n": 32, "i": 20}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        e = xp.exp(xp.where(x > 0, 0.0, x))
        return xp.where(x > 0, x, e - 1), (x, e)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, e = saved
        return (xp.where(x > 0, g, g * e),)


class Gelu(Layer):
    """In its form with tanh (Hendrycks and Gimpel 2016)."""

    floats = {"x": "ni"}
    sizes = {"n": 14, "i": 11}
    wide = {"n": 32, "i": 20}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        t = xp.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + t), (x, t)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, t = saved
        inner = 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner
        return (g * slope,)


class Softplus(Layer):
    """log(1 + exp(x)), written so that no large x overflows."""

    floats = {"x": "ni"}
    sizes = {"n": 14, "i": 11}
    wide = {"n": 32, "i": 20}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        return xp.where(x > 0, x, 0.0) + xp.log1p(xp.exp(-abs(x))), x

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x = saved
        e = xp.exp(-abs(x))
        return (g * xp.where(x > 0, 1.0, e) / (1 + e),)
