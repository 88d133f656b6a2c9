"""Rules of contractions: every one of them, and every one of their vjps, is a matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, sum_leading, unbroadcast


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _rows(x: Array) -> Array:
    """x as one matrix: all leading axes merged, so that a sum over a batch is one product."""
    return x.reshape(-1, x.shape[-1])


def _matmul_vjp(g: Array, step: Step) -> Cotangents:
    """g y^T and x^T g, with vectors taken as a row (x) or a column (y)."""
    x, y = step.operands
    row, column = x.ndim == 1, y.ndim == 1
    matrix_x, matrix_y = (x[None, :] if row else x), (y[:, None] if column else y)
    g = np.expand_dims(g, -1) if column else g
    g = np.expand_dims(g, -2) if row else g
    by_x = unbroadcast(g @ _transposed(matrix_y), matrix_x).reshape(x.shape) if step.needs[0] else None
    by_y = _matmul_by_y(g, matrix_x, matrix_y).reshape(y.shape) if step.needs[1] else None
    return by_x, by_y


def _matmul_by_y(g: Array, x: Array, y: Array) -> Array:
    if y.ndim == 2 and x.shape[:-1] == g.shape[:-1]:
        return _rows(x).T @ _rows(g)
    return unbroadcast(_transposed(x) @ g, y)


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    product = (_rows(x) @ weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return product if bias is None else product + bias


def _linear_vjp(g: Array, step: Step) -> Cotangents:
    x, weight, _ = step.operands
    rows = _rows(g)
    return (
        (rows @ weight).reshape(x.shape) if step.needs[0] else None,
        rows.T @ _rows(x) if step.needs[1] else None,
        sum_leading(rows, 1) if step.needs[2] else None,
    )


def _batch_last(x: Array) -> Array:
    """Images (N, C, H, W) as (C, H, W, N): a window of them is made of runs W N long, where W alone is short."""
    return x.transpose(1, 2, 3, 0)


def _batch_first(x: Array) -> Array:
    """Back to (N, C, H, W), in memory as it is: what follows elementwise keeps that order, and its long runs."""
    return x.transpose(3, 0, 1, 2)


def _pad(x: Array, padding: tuple[int, int]) -> Array:
    """Images with their batch last, zeros around: (C, H + 2p, W + 2p, N), contiguous."""
    (n, c, h, w), (ph, pw) = x.shape, padding
    padded = np.zeros((c, h + 2 * ph, w + 2 * pw, n), x.dtype)
    padded[:, ph : ph + h, pw : pw + w] = _batch_last(x)
    return padded


def _unpad(padded: Array, shape: tuple[int, ...], padding: tuple[int, int]) -> Array:
    (_, _, h, w), (ph, pw) = shape, padding
    return _batch_first(padded[:, ph : ph + h, pw : pw + w])


def _windows(kernel: Sequence[int], output: Sequence[int], attributes: Any) -> Iterator[tuple[int, int, Any]]:
    """For each kernel offset (i, j): the slice of the padded images that it meets."""
    (sh, sw), (dh, dw) = attributes["stride"], attributes["dilation"]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dh, i * dh + (output[0] - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (output[1] - 1) * sw + 1, sw)
            yield i, j, (slice(None), rows, columns)


def _grouped(x: Array, groups: int) -> Array:
    """Channels first (C, ...) as (groups, C / groups, everything else)."""
    return x.reshape(groups, x.shape[0] // groups, -1)


def _taps(weight: Array, groups: int) -> Array:
    """A matrix per kernel offset and group, (kh, kw, groups, out / groups, in / groups), contiguous for BLAS."""
    out, inner, kh, kw = weight.shape
    return np.ascontiguousarray(weight.transpose(2, 3, 0, 1)).reshape(kh, kw, groups, out // groups, inner)


def _weight_of(taps: Array) -> Array:
    """The reverse of `_taps`."""
    kh, kw, groups, out, inner = taps.shape
    return taps.reshape(kh, kw, groups * out, inner).transpose(2, 3, 0, 1)


def _conv2d(x: Array, weight: Array, bias: Array | None, **attributes: Any) -> tuple[Array, Array]:
    """One product per kernel offset, of the weights there with the images shifted there.

    Against im2col, which copies every image kernel-size times, the shifted images stay in cache.
    """
    groups, (out, _, *kernel) = attributes["groups"], weight.shape
    images, taps = _pad(x, attributes["padding"]), _taps(weight, groups)
    output = [
        (extent + 2 * p - d * (k - 1) - 1) // s + 1
        for extent, p, d, k, s in zip(
            x.shape[2:], attributes["padding"], attributes["dilation"], kernel, attributes["stride"], strict=True
        )
    ]
    total = np.zeros((groups, out // groups, math.prod(output) * len(x)), x.dtype)
    for i, j, window in _windows(kernel, output, attributes):
        total += taps[i, j] @ _grouped(images[window], groups)
    total = total.reshape(out, *output, len(x))
    if bias is not None:
        total += bias[:, None, None, None]
    return _batch_first(total), images


def _conv2d_vjp(g: Array, step: Step) -> Cotangents:
    x, weight, _ = step.operands
    images, groups = step.saved, step.attributes["groups"]
    flat = _grouped(np.ascontiguousarray(_batch_last(g)), groups)
    taps = _taps(weight, groups)
    by_images = np.zeros_like(images) if step.needs[0] else None
    by_taps = np.empty_like(taps) if step.needs[1] else None
    for i, j, window in _windows(weight.shape[2:], g.shape[2:], step.attributes):
        if by_taps is not None:
            by_taps[i, j] = flat @ _transposed(_grouped(images[window], groups))
        if by_images is not None:
            shifted = by_images[window]
            shifted += (_transposed(taps[i, j]) @ flat).reshape(shifted.shape)
    return (
        None if by_images is None else _unpad(by_images, x.shape, step.attributes["padding"]),
        None if by_taps is None else _weight_of(by_taps),
        flat.sum(axis=2).reshape(-1) if step.needs[2] else None,
    )


RULES: dict[str, Rule] = {
    "matmul": Rule(np.matmul, _matmul_vjp),
    "linear": Rule(_linear, _linear_vjp),
    "conv2d": Rule(_conv2d, _conv2d_vjp, saves=True),
}
