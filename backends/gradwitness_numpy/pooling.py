"""Rules of pooling: a pass over the kernel's offsets, each a strided view of the padded images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwitness_numpy.numerics import is_extremum
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step

Pair = tuple[int, int]


def _pad(x: Array, padding: Pair, fill: float) -> Array:
    (ph, pw), (h, w) = padding, x.shape[2:]
    if ph == pw == 0:
        return x
    padded = np.full_like(x, fill, shape=(*x.shape[:2], h + 2 * ph, w + 2 * pw))
    padded[:, :, ph : ph + h, pw : pw + w] = x
    return padded


def _unpad(padded: Array, padding: Pair) -> Array:
    (ph, pw), (h, w) = padding, padded.shape[2:]
    return padded[:, :, ph : h - ph, pw : w - pw]


def _windows(images: Array, kernel: Pair, stride: Pair) -> Iterator[Any]:
    """Indices of the strided views, one per kernel offset in row-major order."""
    ends = [extent - k + 1 for extent, k in zip(images.shape[2:], kernel, strict=True)]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield (Ellipsis, slice(i, i + ends[0], stride[0]), slice(j, j + ends[1], stride[1]))


def _max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    images = _pad(x, padding, -np.inf)
    result: Any = None
    for window in _windows(images, kernel_size, stride):
        result = images[window] if result is None else np.maximum(result, images[window])
    return result, images


def _max_pool2d_vjp(g: Array, step: Step) -> Cotangents:
    """Of elements that tie, the first in row-major order takes the whole cotangent."""
    images, winner = step.saved, step.output
    result = np.zeros_like(images)
    free = np.ones_like(winner, bool)
    for window in _windows(images, step.attributes["kernel_size"], step.attributes["stride"]):
        taken = free & is_extremum(images[window], winner)
        result[window] += np.where(taken, g, 0.0)
        free &= ~taken
    return (_unpad(result, step.attributes["padding"]),)


def _avg_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
    images = _pad(x, padding, 0.0)
    total: Any = 0.0
    for window in _windows(images, kernel_size, stride):
        total = total + images[window]
    return total / (kernel_size[0] * kernel_size[1])


def _avg_pool2d_vjp(g: Array, step: Step) -> Cotangents:
    kernel, stride, padding = (step.attributes[a] for a in ("kernel_size", "stride", "padding"))
    (n, c, h, w), (ph, pw) = step.operands[0].shape, padding
    result = np.zeros_like(step.operands[0], shape=(n, c, h + 2 * ph, w + 2 * pw))
    share = g / (kernel[0] * kernel[1])
    for window in _windows(result, kernel, stride):
        result[window] += share
    return (_unpad(result, padding),)


RULES: dict[str, Rule] = {
    "max_pool2d": Rule(_max_pool2d, _max_pool2d_vjp, saves=True),
    "avg_pool2d": Rule(_avg_pool2d, _avg_pool2d_vjp),
}
