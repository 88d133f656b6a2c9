"""What aten's layers are in the vocabulary: convolutions, norms, attention, pooling, losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.compositions import (
    along,
    convolved,
    is_truth,
    labels,
    max_pooled,
    mean_pooled,
    moved,
    normalized,
    pooling_matrix,
    reshaped,
    transposed_convolution,
)
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.ops.value import Value
from gradwitness_torch.aten.operands import Operand

__all__ = ["RULES"]


def _convolution(
    x: Operand,
    weight: Operand,
    bias: Operand,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *flags: Any,
) -> Operand:
    axes = len(np.shape(weight)) - 2
    sizes = [tuple(s) * axes if len(s) == 1 else tuple(s) for s in (stride, padding, dilation, output_padding)]
    step, pad, apart, more = sizes
    if transposed:
        return transposed_convolution(
            x, weight, bias, stride=step, padding=pad, output_padding=more, dilation=apart, groups=groups
        )
    return convolved(x, weight, bias, stride=step, padding=pad, dilation=apart, groups=groups)


def _layer_norm(x: Operand, shape: Sequence[int], weight: Operand, bias: Operand, eps: float) -> Any:
    if weight is not None and bias is not None:
        return ops.layer_norm(x, weight, bias, eps=float(eps)), None, None
    found = normalized(x, tuple(range(x.ndim - len(shape), x.ndim)), eps=float(eps))
    found = found if weight is None else ops.multiply(found, weight)
    return found if bias is None else ops.add(found, bias), None, None


def _batch_norm(
    x: Operand, weight: Operand, bias: Operand, mean: Operand, var: Operand, training: bool, momentum: float, eps: float
) -> Any:
    channels = (1, -1) + (1,) * (x.ndim - 2)
    if training and weight is not None and bias is not None:
        return ops.batch_norm(x, weight, bias, eps=float(eps)), None, None
    if training:
        y = normalized(x, tuple(a for a in range(x.ndim) if a != 1), eps=float(eps))
    else:
        shifted = ops.subtract(x, np.reshape(mean, channels))
        y = ops.divide(shifted, np.reshape(np.sqrt(var + eps), channels))
    y = y if weight is None else ops.multiply(y, reshaped(weight, channels))
    return (y if bias is None else ops.add(y, reshaped(bias, channels))), None, None


def _group_norm(
    x: Value, weight: Operand, bias: Operand, n: int, channels: int, size: int, groups: int, eps: float
) -> Any:
    y = normalized(ops.reshape(x, shape=(n, groups, -1)), (2,), eps=float(eps)).reshape(x.shape)
    each = (1, -1) + (1,) * (x.ndim - 2)
    y = y if weight is None else ops.multiply(y, reshaped(weight, each))
    return (y if bias is None else ops.add(y, reshaped(bias, each))), None, None


def _attention(
    query: Operand,
    key: Operand,
    value: Operand,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Operand = None,
    scale: float | None = None,
    **ignored: Any,
) -> Any:
    if dropout_p:
        raise GradwitnessError("attention with dropout draws its mask inside: give dropout_p=0, or model.eval()")
    key, value = (_for_each_head(x, np.shape(query)[1]) for x in (key, value))
    if attn_mask is None or is_truth(attn_mask):
        found = ops.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
        return found, None
    axes = (*range(len(np.shape(key)) - 2), -1, -2)
    scores = ops.matmul(query, ops.transpose(key, axes=axes))
    scores = ops.multiply(scores, 1 / math.sqrt(np.shape(query)[-1]) if scale is None else scale)
    return ops.matmul(ops.softmax(ops.add(scores, attn_mask), axis=-1), value), None


def _for_each_head(x: Operand, heads: int) -> Operand:
    """Keys or values that several heads of the query share, once for each."""
    (where,) = labels(np.shape(x))
    return x if np.shape(x)[1] == heads else moved(np.repeat(where, heads // np.shape(x)[1], axis=1), x)


def _nll(logs: Operand, target: Array, weight: Operand, reduction: int, ignore_index: int) -> Any:
    """Of log probabilities (N, C, ...): reduction 0 is none, 1 mean, 2 sum."""
    where = np.asarray(target)
    counts = where != ignore_index
    classes = np.where(counts, where, 0)
    along_classes = 1 if len(np.shape(logs)) > 1 else 0
    (marks,) = labels(np.shape(logs))
    picked = np.take_along_axis(marks, np.expand_dims(classes, along_classes), axis=along_classes)
    chosen = ops.negative(moved(picked.squeeze(along_classes), logs))
    weights: Operand = counts.astype(np.float64)
    if isinstance(weight, Value):
        weights = ops.multiply(ops.take(weight, classes, axis=0), weights)
    elif weight is not None:
        weights = weights * weight[classes]
    plain = isinstance(weights, np.ndarray) and np.all(weights == 1.0)
    losses = chosen if plain else ops.multiply(chosen, weights)
    if reduction == 0:
        return losses, None
    total = ops.sum(losses) if np.shape(losses) else losses
    whole = ops.sum(weights) if isinstance(weights, Value) else float(np.sum(weights))
    return (ops.divide(total, whole) if reduction == 1 else total), None


def _max_pool(
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    axes: int = 2,
) -> Any:
    kernel, padding, dilation = (_each(s, axes) for s in (kernel, padding, dilation))
    stride = _each(stride, axes) if stride else kernel
    if axes == 2 and not ceil_mode and dilation == (1, 1) and x.ndim == 4:
        return ops.max_pool2d(x, kernel_size=kernel, stride=stride, padding=padding), None
    out = _pooled_sizes(x.shape[-axes:], kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    return max_pooled(x, out, kernel=kernel, stride=stride, padding=padding, dilation=dilation), None


def _avg_pool(
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    axes: int = 2,
) -> Operand:
    kernel, padding = _each(kernel, axes), _each(padding, axes)
    stride = _each(stride, axes) if stride else kernel
    if axes == 2 and x.ndim == 4 and not ceil_mode and count_include_pad and divisor_override is None:
        return ops.avg_pool2d(x, kernel_size=kernel, stride=stride, padding=padding)
    out = _pooled_sizes(x.shape[-axes:], kernel, stride, padding, (1,) * axes, ceil_mode=ceil_mode)
    counts = np.ones(())
    for n, o, k, s, p in zip(x.shape[-axes:], out, kernel, stride, padding, strict=True):
        begin = np.arange(o) * s - p
        end = np.minimum(begin + k, n + p)
        inside = end - begin if count_include_pad else np.minimum(end, n) - np.maximum(begin, 0)
        counts = np.multiply.outer(counts, inside)
    divisors = counts if divisor_override is None else np.full(counts.shape, float(divisor_override))
    return mean_pooled(x, out, divisors.astype(np.float64), kernel=kernel, stride=stride, padding=padding)


def _each(size: Any, axes: int) -> tuple[int, ...]:
    sizes = tuple(size) if isinstance(size, Sequence) else (size,)
    return sizes * axes if len(sizes) == 1 else sizes


def _pooled_sizes(extents: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, *, ceil_mode: bool) -> list[int]:
    """As torch counts windows: with ceil_mode, also a last one that begins inside and ends outside."""
    found = []
    for n, k, s, p, d in zip(extents, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        found.append(count - 1 if ceil_mode and (count - 1) * s >= n + p else count)
    return found


def _adaptive_mean(x: Value, sizes: Sequence[int]) -> Operand:
    for axis, out in enumerate(reversed(sizes), start=1):
        extent = x.shape[-axis]
        if out != extent:
            x = along(x, pooling_matrix(out, extent), x.ndim - axis)
    return x


RULES: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "native_group_norm": _group_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "nll_loss_forward": _nll,
    "nll_loss2d_forward": _nll,
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": lambda x, *args: _max_pool(x, *args, axes=3),
    "avg_pool2d": _avg_pool,
    "avg_pool3d": lambda x, *args: _avg_pool(x, *args, axes=3),
    "avg_pool1d": lambda x, *args: _avg_pool(x, *args, axes=1),
    "_adaptive_avg_pool2d": _adaptive_mean,
    "_adaptive_avg_pool3d": _adaptive_mean,
    "adaptive_avg_pool1d": _adaptive_mean,
}
