"""Normalisations."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["BatchNorm", "LayerNorm", "RmsNorm"]


class BatchNorm(Layer):
    """Over the batch, in training (Ioffe and Szegedy 2015)."""

    floats = {"x": "ni", "gamma": "i", "beta": "i"}
    sizes = {"n": 12, "i": 8}
    wide = {"n": 32, "i": 20}
    fewest = 3  # of two examples, each is plus or minus one whatever x is

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, gamma, beta = inputs
        centred = x - x.mean(axis=0)
        var = (centred**2).mean(axis=0)
        return gamma * centred / xp.sqrt(var + 1e-5) + beta, (centred, var, gamma)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        centred, var, gamma = saved
        inv = 1 / xp.sqrt(var + 1e-5)
        xhat = centred * inv
        dxhat = g * gamma
        dx = inv * (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0))
        dgamma = (g * xhat).sum(axis=0)
        dbeta = g.sum(axis=0)
        return dx, dgamma, dbeta


class LayerNorm(Layer):
    """Over the features of each example (Ba, Kiros and Hinton 2016)."""

    floats = {"x": "ni", "gamma": "i", "beta": "i"}
    sizes = {"n": 9, "i": 12}
    wide = {"n": 20, "i": 32}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, gamma, beta = inputs
        centred = x - x.mean(axis=-1)[..., None]
        inv = 1 / xp.sqrt((centred**2).mean(axis=-1)[..., None] + 1e-5)
        return gamma * centred * inv + beta, (centred, inv, gamma)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        centred, inv, gamma = saved
        xhat = centred * inv
        dxhat = g * gamma
        mean = dxhat.mean(axis=-1)[..., None]
        slope = (dxhat * xhat).mean(axis=-1)[..., None]
        dx = inv * (dxhat - mean - xhat * slope)
        dgamma = (g * xhat).sum(axis=0)
        dbeta = g.sum(axis=0)
        return dx, dgamma, dbeta


class RmsNorm(Layer):
    """Scaled to a root mean square of 1 (Zhang and Sennrich 2019)."""

    floats = {"x": "ni", "gamma": "i"}
    sizes = {"n": 9, "i": 12}
    wide = {"n": 20, "i": 32}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, gamma = inputs
        inv = 1 / xp.sqrt((x**2).mean(axis=-1)[..., None] + 1e-6)
        return gamma * x * inv, (x, inv, gamma)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, inv, gamma = saved
        dxhat = g * gamma
        dot = (dxhat * x).mean(axis=-1)[..., None]
        dx = inv * dxhat - inv**3 * x * dot
        dgamma = (g * x * inv).sum(axis=0)
        return dx, dgamma
