"""Pooling."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["AvgPool", "MaxPool"]


class MaxPool(Layer):
    """The largest of each 2 x 2 pixels."""

    floats = {"x": "nchw"}
    sizes = {"n": 3, "c": 2, "h": 6, "w": 8}
    wide = {"n": 4, "c": 3, "h": 8, "w": 10}
    smooth = False

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y = xp.amax(xp.amax(blocks, 5), 3)
        return y, (blocks, y)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        blocks, y = saved
        n, c, rows, _, columns, _ = blocks.shape
        is_largest = blocks == y[:, :, :, None, :, None]
        dblocks = xp.where(is_largest, g[:, :, :, None, :, None], 0.0)
        return (dblocks.reshape(n, c, 2 * rows, 2 * columns),)


class AvgPool(Layer):
    """The mean of three neighbours; the padding counts as zeros."""

    floats = {"x": "nct"}
    sizes = {"n": 4, "c": 3, "t": 11}
    wide = {"n": 6, "c": 5, "t": 20}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        p = xp.pad(x, 1, 1)
        total = p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]
        return total / 3, ()

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        p = xp.pad(g, 1, 1)
        dx = (p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]) / 3
        return (dx,)
