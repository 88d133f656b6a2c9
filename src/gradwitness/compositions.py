"""What frameworks have and the vocabulary lacks, composed of its ops: for losses that are captured.

Operands are traced values or NumPy arrays. Whatever merely moves elements about is one rule, `moved`: run on labels
instead of numbers, a function shows where each element goes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gradwitness import ops
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.ops.value import BOOL, FLOAT, Operand, Value

__all__ = [
    "NOTHING",
    "added_at",
    "along",
    "as_float",
    "both",
    "convolved",
    "cumulative",
    "either",
    "eliminated",
    "exchanged",
    "is_float",
    "is_truth",
    "labels",
    "max_pooled",
    "mean_pooled",
    "moved",
    "negated",
    "normalized",
    "pooling_matrix",
    "product",
    "reshaped",
    "sign",
    "spread_out",
    "swapped",
    "transposed_convolution",
    "windows",
]

NOTHING = 0  # the label of a zero that is no operand's
TOGETHER = 32  # terms of a sum by position that are added up at once
Sizes = Sequence[int]


# What moves elements


def labels(*shapes: Sequence[int]) -> list[Array]:
    """An array of each shape in which every element has a label of its own, from 1."""
    starts = np.cumsum([1, *(math.prod(shape) for shape in shapes)])
    return [start + np.arange(math.prod(s)).reshape(s) for start, s in zip(starts, shapes, strict=False)]


def moved(where: Array, *operands: Operand) -> Operand:
    """The elements of the operands at these `labels` of their shapes; zero where the label is `NOTHING`."""
    edges = np.cumsum([1, *(math.prod(np.shape(x)) for x in operands)])
    if where.size and not NOTHING <= int(where.min()) <= int(where.max()) < int(edges[-1]):
        raise GradwitnessError("an element is asked for that is not there")
    part = np.searchsorted(edges, where, side="right") - 1  # -1 for NOTHING
    used = [i for i in range(len(operands)) if np.any(part == i)]
    flat: list[Operand] = [_flat(operands[i]) for i in used]
    start = dict(zip(used, np.cumsum([0, *(edges[i + 1] - edges[i] for i in used)]), strict=False))
    if np.any(part < 0):
        start[-1] = sum(int(edges[i + 1] - edges[i]) for i in used)
        flat.append(np.zeros(1))
    index = np.empty(where.shape, np.int64)
    for i, at in start.items():
        here = part == i
        index[here] = where[here] - (edges[i] if i >= 0 else NOTHING) + at
    if not any(isinstance(x, Value) for x in flat):
        return np.concatenate([np.zeros(0), *flat])[index]
    joined = flat[0] if len(flat) == 1 else ops.concatenate(*flat, axis=0)
    if joined.size == index.size and np.array_equal(index.reshape(-1), np.arange(index.size)):
        return reshaped(joined, where.shape)
    return ops.take(joined, index, axis=0)


def added_at(x: Operand, positions: Array, source: Operand) -> Operand:
    """x with each element of `source` added at its position in x, counted in row-major order."""
    positions, shape = positions.reshape(-1), np.shape(x)
    if not positions.size:
        return x
    source = _flat(source)
    while True:
        order = np.argsort(positions, kind="stable")
        rank = np.empty(positions.size, np.int64)  # the how manyth at its position
        begins = np.searchsorted(positions[order], positions[order])
        rank[order] = np.arange(positions.size) - begins
        rows, row = np.unique(np.stack([positions, rank // TOGETHER]), axis=1, return_inverse=True)
        table = np.full((rows.shape[1], min(int(rank.max()) + 1, TOGETHER)), NOTHING)
        table[row.reshape(-1), rank % TOGETHER] = 1 + np.arange(positions.size)
        source, positions = ops.sum(moved(table, source), axis=1), rows[0]
        if np.unique(positions).size == positions.size:
            break
    where = np.full(math.prod(shape), NOTHING)
    where[positions] = 1 + np.arange(positions.size)
    return ops.add(x, moved(where.reshape(shape), source))


def _flat(x: Operand) -> Operand:
    return reshaped(x, (-1,))


def reshaped(x: Operand, shape: Sequence[int]) -> Operand:
    if np.shape(x) == tuple(shape):
        return x
    return ops.reshape(x, shape=tuple(shape)) if isinstance(x, Value) else np.reshape(x, shape)


def is_float(x: object) -> bool:
    """Whether it is a traced value of floats, or an array of them."""
    return x.dtype == FLOAT if isinstance(x, Value) else isinstance(x, np.ndarray) and x.dtype.kind == "f"


# Along one axis


def along(x: Operand, matrix: Array, axis: int) -> Operand:
    """The matrix, of shape (new, old), times x along one axis."""
    order = list(range(len(np.shape(x))))
    order[axis], order[-1] = order[-1], order[axis]
    turned = ops.transpose(x, axes=order)
    return ops.transpose(ops.matmul(turned, np.ascontiguousarray(matrix.T)), axes=order)


def cumulative(x: Value, axis: int, combine: Callable[[Any, Any], Any], neutral: float) -> Value:
    """x combined from the first element along an axis to each, in as many steps as the extent has binary digits.

    Hillis and Steele, "Data parallel algorithms", CACM 29 (1986).
    """
    axis %= max(x.ndim, 1)
    step = 1
    while x.ndim and step < x.shape[axis]:
        before = (slice(None),) * axis
        head = np.full((*x.shape[:axis], step, *x.shape[axis + 1 :]), neutral)
        x = combine(x, ops.concatenate(head, x[(*before, slice(0, x.shape[axis] - step))], axis=axis))
        step *= 2
    return x


def product(x: Value, axis: int | None, *, keepdims: bool = False) -> Value:
    """The product of the elements along an axis, of all of them by default, pair by pair."""
    if axis is None:
        flat = x.reshape(-1)
        found = product(flat, 0) if flat.size else flat
        return found.reshape((1,) * x.ndim if keepdims else ())
    axis %= x.ndim
    before = (slice(None),) * axis
    while (count := x.shape[axis]) > 1:
        half = count // 2
        pairs = ops.multiply(x[(*before, slice(0, half))], x[(*before, slice(half, 2 * half))])
        rest = [x[(*before, slice(2 * half, count))]] if count % 2 else []
        x = ops.concatenate(pairs, *rest, axis=axis) if rest else pairs
    return x if keepdims else x[(*before, 0)]


# Truth


def is_truth(x: object) -> bool:
    """Whether it says what holds and what does not."""
    return x.dtype == BOOL if isinstance(x, Value) else np.asarray(x).dtype.kind == "b"


def as_float(mask: Operand) -> Operand:
    """1.0 where it holds, 0.0 elsewhere."""
    return ops.where(mask, 1.0, 0.0) if isinstance(mask, Value) else np.where(mask, 1.0, 0.0)


def both(x: Operand, y: Operand) -> Operand:
    return ops.greater(ops.multiply(as_float(x), as_float(y)), 0.5)


def either(x: Operand, y: Operand) -> Operand:
    return ops.greater(ops.add(as_float(x), as_float(y)), 0.5)


def negated(x: Operand) -> Operand:
    return ops.less(as_float(x), 0.5)


def sign(x: Operand) -> Operand:
    """1.0 above zero, -1.0 below it."""
    return ops.subtract(as_float(ops.greater(x, 0.0)), as_float(ops.less(x, 0.0)))


# Matrices: the last two axes, of a stack of them


def swapped(x: Operand) -> Operand:
    """The transpose of each."""
    axes = (*range(len(np.shape(x)) - 2), -1, -2)
    return ops.transpose(x, axes=axes) if isinstance(x, Value) else np.swapaxes(x, -1, -2)


def exchanged(a: Value, order: Array) -> Operand:
    """Each with its rows in this order, of shape (..., n)."""
    (marks,) = labels(a.shape)
    return moved(np.take_along_axis(marks, order[..., None], axis=-2), a)


def eliminated(a: Operand) -> Value:
    """L and U of each, a = L U, in one array as LAPACK has them: by Gaussian elimination, which exchanges no rows."""
    n = np.shape(a)[-1]
    parts, places = [], []
    for k in range(n):
        row, pivot = a[..., 0, :], a[..., 0, :1]
        factors = a[..., 1:, 0] / pivot
        parts += [row, factors] if k < n - 1 else [row]
        places += [k * n + np.arange(k, n), np.arange(k + 1, n) * n + k]
        if k < n - 1:
            a = a[..., 1:, 1:] - factors[..., None] * row[..., None, 1:]
    return ops.take(ops.concatenate(*parts, axis=-1), np.argsort(np.concatenate(places)).reshape(n, n), axis=-1)


# Windows: images are (N, C, H, W), lines (N, C, L), volumes (N, C, D, H, W)


def convolved(
    x: Operand, weight: Operand, bias: Operand | None, *, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Operand:
    """A convolution over one, two or three axes."""
    if len(stride) == 3:
        return _convolved_by_depth(x, weight, bias, stride, padding, dilation, groups)
    if len(stride) == 1:  # over two, of which one has a single row
        x, weight = (reshaped(a, (*np.shape(a)[:2], 1, np.shape(a)[2])) for a in (x, weight))
        found = convolved(
            x,
            weight,
            bias,
            stride=(1, *stride),
            padding=(0, *padding),
            dilation=(1, *dilation),
            groups=groups,
        )
        return reshaped(found, (*found.shape[:2], found.shape[3]))
    (s0, s1), (p0, p1), (d0, d1) = stride, padding, dilation
    return ops.conv2d(x, weight, bias, stride=(s0, s1), padding=(p0, p1), dilation=(d0, d1), groups=groups)


def _convolved_by_depth(
    x: Operand, weight: Operand, bias: Operand | None, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Operand:
    """The sum over the depths of the kernel of convolutions of the slices that each of them meets."""
    (where,) = labels(np.shape(x))
    where = spread_out(where, 2, 1, before=padding[0], after=padding[0])
    depth = np.shape(weight)[2]
    out = (where.shape[2] - dilation[0] * (depth - 1) - 1) // stride[0] + 1
    parts = []
    for k in range(depth):
        begin = k * dilation[0]
        slices = where[:, :, begin : begin + (out - 1) * stride[0] + 1 : stride[0]].swapaxes(1, 2)
        flat = moved(slices.reshape(-1, *slices.shape[2:]), x)
        parts.append(
            convolved(
                flat,
                weight[:, :, k],
                bias if k == 0 else None,
                stride=stride[1:],
                padding=padding[1:],
                dilation=dilation[1:],
                groups=groups,
            )
        )
    total = functools.reduce(ops.add, parts)
    found = ops.reshape(total, shape=(np.shape(x)[0], out, *total.shape[1:]))
    return ops.transpose(found, axes=(0, 2, 1, 3, 4))


def transposed_convolution(
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    *,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Operand:
    """The transpose of a convolution over one to three axes, of weight (in, out / groups, *kernel): a convolution of x,
    with zeros between its elements, by the kernel turned round."""
    kernel, axes = np.shape(weight)[2:], len(stride)
    (where,) = labels(np.shape(x))
    for axis, (step, pad, more, apart, k) in enumerate(
        zip(stride, padding, output_padding, dilation, kernel, strict=True), start=2
    ):
        where = spread_out(where, axis, step, before=apart * (k - 1) - pad, after=apart * (k - 1) - pad + more)
    (turned,) = labels(np.shape(weight))
    turned = np.flip(turned, tuple(range(2, 2 + axes)))
    inside, out = np.shape(weight)[:2]
    turned = turned.reshape(groups, inside // groups, out, *kernel).swapaxes(1, 2)
    turned = turned.reshape(groups * out, inside // groups, *kernel)
    ones, zeros = (1,) * axes, (0,) * axes
    return convolved(
        moved(where, x), moved(turned, weight), bias, stride=ones, padding=zeros, dilation=dilation, groups=groups
    )


def spread_out(where: Array, axis: int, step: int, *, before: int, after: int) -> Array:
    """Labels with step - 1 zeros between neighbours along an axis, and so many at its ends; negative: cut off."""
    extent = (where.shape[axis] - 1) * step + 1
    wide = np.full((*where.shape[:axis], extent, *where.shape[axis + 1 :]), NOTHING)
    wide[(slice(None),) * axis + (slice(None, None, step),)] = where
    ends = [(0, 0)] * where.ndim
    ends[axis] = (max(before, 0), max(after, 0))
    wide = np.pad(wide, ends, constant_values=NOTHING)
    cut = slice(max(-before, 0), wide.shape[axis] - max(-after, 0))
    return wide[(slice(None),) * axis + (cut,)]


def windows(where: Array, out: Sequence[int], *, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """Labels of shape (*leading, *out, elements of a window) for windows over the last axes."""
    axes = len(kernel)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    seen = sliding_window_view(where, spans, axis=tuple(range(-axes, 0)))
    key: list[Any] = [..., *(slice(0, (n - 1) * s + 1, s) for n, s in zip(out, stride, strict=True))]
    seen = seen[(*key, *(slice(None, None, d) for d in dilation))]
    return np.ascontiguousarray(seen).reshape(*where.shape[:-axes], *out, -1)


def _padded_windows(
    shape: Sequence[int], out: Sequence[int], *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Array:
    """The same of an array of this shape with `NOTHING` around it, as far as the windows reach."""
    axes, (where,) = len(kernel), labels(shape)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(out, stride, dilation, kernel, strict=True)]
    ends = [(p, max(r - n - p, 0)) for r, n, p in zip(reach, shape[-axes:], padding, strict=True)]
    where = np.pad(where, [(0, 0)] * (len(shape) - axes) + ends, constant_values=NOTHING)
    return windows(where, out, kernel=kernel, stride=stride, dilation=dilation)


def max_pooled(
    x: Value, out: Sequence[int], *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Operand:
    """The maximum of each window over the last axes, of which there are `out`."""
    where = _padded_windows(x.shape, out, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    outside = np.where(where == NOTHING, -np.inf, 0.0)
    found = moved(where, x)
    return ops.max(ops.add(found, outside) if np.any(outside) else found, axis=-1)


def mean_pooled(
    x: Value, out: Sequence[int], divisors: Array, *, kernel: Sizes, stride: Sizes, padding: Sizes
) -> Operand:
    """The sum of each window over the last axes, each over its divisor."""
    ones = (1,) * len(kernel)
    where = _padded_windows(x.shape, out, kernel=kernel, stride=stride, padding=padding, dilation=ones)
    return ops.divide(ops.sum(moved(where, x), axis=-1), divisors)


def pooling_matrix(out: int, extent: int) -> Array:
    """Of shape (out, extent): what adaptive average pooling takes the means of along an axis."""
    matrix = np.zeros((out, extent))
    for i in range(out):
        begin, end = i * extent // out, -((-(i + 1) * extent) // out)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


# Normalisation


def normalized(x: Value, axes: tuple[int, ...], *, eps: float) -> Value:
    """(x - mean) / sqrt(var + eps) over these axes."""
    centred = x - ops.mean(x, axis=axes, keepdims=True)
    return centred / ops.sqrt(ops.mean(centred * centred, axis=axes, keepdims=True) + eps)
