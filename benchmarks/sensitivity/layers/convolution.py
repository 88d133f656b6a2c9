"""Convolutions."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["Conv1d", "Conv2d"]

OFFSETS = (0, 1, 2)


class Conv2d(Layer):
    """3 x 3, padded by one pixel: images NCHW, weights OIHW."""

    floats = {"x": "nchw", "w": "oc33", "b": "o"}
    sizes = {"n": 2, "c": 3, "h": 5, "w": 6, "o": 4}
    wide = {"n": 3, "c": 4, "h": 7, "w": 8, "o": 5}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w, b = inputs
        height, width = x.shape[2:]
        padded = xp.pad(x, 1, 2)
        terms = [
            xp.einsum("nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j])
            for i in OFFSETS
            for j in OFFSETS
        ]
        return sum(terms) + b[:, None, None], (padded, w)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        padded, w = saved
        height, width = g.shape[2:]
        dx, rows = 0, []
        for i in OFFSETS:
            columns = []
            for j in OFFSETS:
                shifted = xp.pad(g, 1, 2)[:, :, 2 - i : 2 - i + height, 2 - j : 2 - j + width]
                dx = dx + xp.einsum("nohw,oc->nchw", shifted, w[:, :, i, j])
                patch = padded[:, :, i : i + height, j : j + width]
                columns.append(xp.einsum("nohw,nchw->oc", g, patch))
            rows.append(xp.stack(columns, -1))
        dw = xp.stack(rows, -2)
        db = g.sum(axis=(0, 2, 3))
        return dx, dw, db


class Conv1d(Layer):
    """Three steps wide, with a stride of two, so that windows overlap by one: sequences NTC."""

    floats = {"x": "ntc", "w": "o3c", "b": "o"}
    sizes = {"n": 3, "t": 9, "c": 4, "o": 5}
    wide = {"n": 4, "t": 17, "c": 6, "o": 7}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, w, b = inputs
        index = 2 * xp.arange(x.shape[1] // 2)[:, None] + xp.arange(3)
        windows = x[:, index]
        return xp.einsum("nskc,okc->nso", windows, w) + b, (x, windows, index, w)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, windows, index, w = saved
        dwindows = xp.einsum("nso,okc->sknc", g, w)
        dx = xp.swapaxes(xp.add_at(x.shape[1], index, dwindows), 0, 1)
        dw = xp.einsum("nso,nskc->okc", g, windows)
        db = g.sum(axis=(0, 1))
        return dx, dw, db
