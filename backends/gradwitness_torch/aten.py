"""What torch's aten ops are in the vocabulary: the rules by which a loss is captured.

Operands are traced values, NumPy arrays for tensors that do not depend on what is differentiated, and Python scalars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map

from gradwitness import ops
from gradwitness.compositions import (
    added_at,
    along,
    as_float,
    both,
    convolved,
    cumulative,
    either,
    labels,
    max_pooled,
    mean_pooled,
    moved,
    negated,
    normalized,
    pooling_matrix,
    product,
    transposed_convolution,
)
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.ops.value import FLOAT, Value

__all__ = ["DETACHED", "IDENTITIES", "MOVES", "RULES", "SHAPE_ALONE", "by_labels"]

LEAST = -1e300  # for a maximum: what takes no part in it
Operand = Any  # a Value, a NumPy array or a scalar


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETACHED = _names("detach detach_copy")
IDENTITIES = DETACHED | _names("alias alias_copy clone contiguous lift_fresh lift positive")
SHAPE_ALONE = _names(  # what they return depends on no number of their operands
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones new_full "
    "new_empty_strided empty_strided sym_size sym_numel sym_stride sym_storage_offset _to_functional_tensor "
    "is_same_size _assert_async _assert_tensor_metadata _has_compatible_shallow_copy_type is_pinned "
    "scalar_tensor bernoulli native_dropout_mask"
)
MOVES = _names(  # each element of a result is one of an operand's, or zero
    "flip roll index _unsafe_index gather index_select take diagonal diagonal_copy unfold as_strided as_strided_copy "
    "repeat tril triu reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d pixel_shuffle pixel_unshuffle im2col upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d masked_select diag_embed scatter "
    "slice_scatter select_scatter diagonal_scatter as_strided_scatter index_copy masked_scatter rot90 movedim "
    "channel_shuffle split_copy unbind_copy repeat_interleave"
)


def by_labels(func: Any, args: Any, kwargs: Any) -> Any:
    """What an op that only moves elements returns, by what it does with labels in place of floats."""
    if func._overloadname.startswith(("value", "reduce")):
        raise GradwitnessError("a number that is written to places has no rule; give a tensor")
    floats = [x for x in tree_flatten((args, kwargs))[0] if _is_float(x)]
    marks = dict(zip(map(id, floats), labels(*(np.shape(x) for x in floats)), strict=True))

    def marked(x: Any) -> Any:
        if id(x) in marks:
            return torch.from_numpy(marks[id(x)].astype(np.float64))
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

    found = func(*tree_map(marked, args), **tree_map(marked, kwargs))
    return tree_map(lambda y: moved(y.numpy().astype(np.int64), *floats), found)


def _is_float(x: Any) -> bool:
    return x.dtype == FLOAT if isinstance(x, Value) else isinstance(x, np.ndarray) and x.dtype.kind == "f"


# Elementwise


def _scaled(x: Operand, alpha: float) -> Operand:
    if alpha == 1:
        return x
    return ops.multiply(_float(x), alpha) if isinstance(x, Value) else np.multiply(_float(x), alpha)


def _float(x: Operand) -> Operand:
    """What is counted with as a float: truth as 1.0 and 0.0."""
    if isinstance(x, Value):
        return as_float(x) if x.dtype == "bool" else x
    return np.asarray(x, np.float64) if isinstance(x, np.ndarray) else x


def _on_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands, **options: function(*map(_float, operands), **options)


def _add(x: Operand, y: Operand, *, alpha: float = 1) -> Operand:
    return ops.add(_float(x), _float(_scaled(y, alpha)))


def _sub(x: Operand, y: Operand, *, alpha: float = 1) -> Operand:
    return ops.subtract(_float(x), _float(_scaled(y, alpha)))


def _mul(x: Operand, y: Operand) -> Operand:
    if _is_truth(x) and _is_truth(y):
        return both(x, y)
    return ops.multiply(_float(x), _float(y))


def _div(x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Operand:
    if rounding_mode is not None:
        raise GradwitnessError("a division that is rounded to whole numbers has no rule")
    return ops.divide(_float(x), _float(y))


def _pow(x: Operand, y: Operand) -> Operand:
    if isinstance(y, int | float) and y == 2:
        return ops.multiply(x, x)
    return ops.power(_float(x), _float(y))


def _clamp(x: Operand, min: Any = None, max: Any = None) -> Operand:
    if isinstance(min, int | float | None) and isinstance(max, int | float | None):
        return ops.clip(x, min=None if min is None else float(min), max=None if max is None else float(max))
    x = x if min is None else ops.maximum(x, min)
    return x if max is None else ops.minimum(x, max)


def _elu(x: Operand, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Operand:
    if input_scale != 1:
        raise GradwitnessError("an elu of a scaled input has no rule")
    return _scaled(ops.elu(x, alpha=float(alpha)), scale)


def _softplus(x: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    """Above the threshold torch returns x itself."""
    z = _scaled(x, beta)
    smooth = _scaled(ops.softplus(ops.minimum(z, float(threshold))), 1 / beta)
    return ops.where(ops.greater(z, float(threshold)), x, smooth)


def _threshold(x: Operand, threshold: float, value: float) -> Operand:
    return ops.where(ops.greater(x, float(threshold)), x, float(value))


def _where(condition: Operand, x: Operand, y: Operand) -> Operand:
    return ops.where(condition, _float(x), _float(y))


def _masked_fill(x: Operand, mask: Operand, value: Operand) -> Operand:
    return ops.where(mask, _float(value) if isinstance(value, Value | np.ndarray) else float(value), x)


def _log_sigmoid(x: Operand) -> Any:
    return ops.negative(ops.softplus(ops.negative(x))), None


def _sign(x: Operand) -> Operand:
    return ops.subtract(as_float(ops.greater(x, 0.0)), as_float(ops.less(x, 0.0)))


def _is_truth(x: Operand) -> bool:
    return x.dtype in ("bool", np.bool_) if isinstance(x, Value | np.ndarray) else isinstance(x, bool)


def _logical(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*operands: Operand) -> Operand:
        truths = [x if _is_truth(x) else ops.not_equal(x, 0.0) for x in operands]
        return function(*truths)

    return apply


def _cast(x: Operand, dtype: Any = None, **ignored: Any) -> Operand:
    """Fewer digits are a rounding, and `1 *` is where it happens."""
    if isinstance(x, Value) and x.dtype != FLOAT:
        return x if dtype is None or not dtype.is_floating_point else as_float(x)
    return x * 1.0 if x.builder.narrow else x


# Sums and products


def _axes(dim: Any, x: Operand) -> Any:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
        return function(_float(x), axis=_axes(dim, x), keepdims=keepdim)

    return apply


def _var(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Operand:
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased in (None, True) else 0
    return ops.var(x, axis=_axes(dim, x), keepdims=keepdim, correction=correction)


def _var_mean(x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **options: Any) -> Any:
    return _var(x, dim, unbiased, keepdim, **options), ops.mean(x, axis=_axes(dim, x), keepdims=keepdim)


def _extremum(function: Callable[..., Any]) -> Callable[..., Any]:
    """max and min: of all elements, along an axis (with indices, which are decided), or of two tensors."""

    def apply(x: Operand, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Value | np.ndarray):
            return (ops.maximum if function is ops.max else ops.minimum)(x, dim)
        if dim is None:
            return function(x, axis=None)
        return function(x, axis=dim, keepdims=keepdim), None

    return apply


def _log_add(x: Operand, y: Operand) -> Operand:
    return ops.add(ops.maximum(x, y), ops.log1p(ops.exp(ops.negative(ops.abs(ops.subtract(x, y))))))


def _rrelu(
    x: Operand, noise: Operand, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *rest: Any
) -> Operand:
    if training:
        raise GradwitnessError("it draws its slopes: give training=False, or model.eval()")
    return ops.leaky_relu(x, negative_slope=(lower + upper) / 2)


def _trilinear(
    x: Operand, y: Operand, z: Operand, new_x: Any, new_y: Any, new_z: Any, summed: Any, *rest: Any
) -> Operand:
    """The product of all three, each with new axes at these places, summed over others."""
    wide = []
    for operand, axes in ((x, new_x), (y, new_y), (z, new_z)):
        for axis in sorted(axes):
            operand = _shaped(operand, np.expand_dims(np.empty(np.shape(operand)), axis).shape)
        wide.append(operand)
    return ops.sum(ops.multiply(ops.multiply(wide[0], wide[1]), wide[2]), axis=tuple(summed))


def _cumsum(x: Operand, dim: int, *, dtype: Any = None) -> Operand:
    return cumulative(_float(x), dim, ops.add, 0.0)


def _vector_norm(x: Operand, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
    if ord in (1, 2):
        return ops.norm(x, axis=_axes(dim, x), keepdims=keepdim, ord=int(ord))
    if ord == math.inf:
        return ops.max(ops.abs(x), axis=_axes(dim, x), keepdims=keepdim)
    powers = ops.power(ops.abs(x), float(ord))
    return ops.power(ops.sum(powers, axis=_axes(dim, x), keepdims=keepdim), 1 / ord)


def _prod(x: Operand, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
    return product(x, dim, keepdims=keepdim)


def _addmm(bias: Operand, x: Operand, y: Operand, *, beta: float = 1, alpha: float = 1) -> Operand:
    if beta == alpha == 1 and _is_transposed(y) and np.shape(bias) == (np.shape(y)[1],):
        return ops.linear(x, _transposed(y), bias)
    return ops.add(_scaled(bias, beta), _scaled(ops.matmul(x, y), alpha))


def _mm(x: Operand, y: Operand) -> Operand:
    return ops.linear(x, _transposed(y)) if _is_transposed(y) else ops.matmul(x, y)


def _is_transposed(y: Operand) -> bool:
    """Whether it is the transpose of a weight: then the product is what torch calls linear."""
    return (
        isinstance(y, Value)
        and y.node.op == "transpose"
        and y.ndim == 2
        and y.node.attributes["axes"] == (1, 0)
        and not y.node.inputs[0].is_op
    )


def _transposed(y: Value) -> Value:
    (weight,) = y.node.inputs
    return Value(y.builder, weight, weight.spec)


# Shapes


def _view(x: Value, shape: Sequence[int], *rest: Any) -> Operand:
    return ops.reshape(x, shape=tuple(shape))


def _permuted(x: Value, dims: Sequence[int]) -> Operand:
    return ops.transpose(x, axes=tuple(dims))


def _swapped(x: Value, dim0: int = 0, dim1: int = 1) -> Operand:
    if x.ndim < 2:
        return x
    axes = list(range(x.ndim))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return ops.transpose(x, axes=axes)


def _expand(x: Value, size: Sequence[int], *, implicit: bool = False) -> Operand:
    missing = len(size) - x.ndim
    shape = tuple(x.shape[i - missing] if n == -1 else n for i, n in enumerate(size))
    return x if shape == x.shape else ops.broadcast_to(x, shape=shape)


def _unsqueeze(x: Value, dim: int) -> Operand:
    shape = list(x.shape)
    shape.insert(dim if dim >= 0 else dim + x.ndim + 1, 1)
    return ops.reshape(x, shape=tuple(shape))


def _squeeze(x: Value, dim: Any = None) -> Operand:
    axes = range(x.ndim) if dim is None else [d % x.ndim for d in (dim if isinstance(dim, Sequence) else [dim])]
    return ops.reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if not (i in axes and n == 1)))


def _at(x: Value, dim: int, entry: Any) -> Value:
    return x[(*(slice(None),) * (dim % x.ndim), entry)]


def _slice(x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Operand:
    entry = slice(*slice(start, end, step).indices(x.shape[dim]))
    whole = entry == slice(0, x.shape[dim], 1)
    return x if whole else _at(x, dim, entry)


def _split(x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    extent = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)]
    ends = np.cumsum(sizes)
    return [_at(x, dim, slice(int(end - n), int(end))) for end, n in zip(ends, sizes, strict=True)]


def _unbind(x: Value, dim: int = 0) -> list[Value]:
    return [_at(x, dim, i) for i in range(x.shape[dim])]


def _cat(tensors: Sequence[Operand], dim: int = 0) -> Operand:
    parts = [_float(x) for x in tensors if np.shape(x) != (0,)]  # which torch passes over
    return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=dim)


def _stack(tensors: Sequence[Operand], dim: int = 0) -> Operand:
    return ops.stack(*map(_float, tensors), axis=dim)


def _constant_pad(x: Value, pad: Sequence[int], value: float = 0.0) -> Operand:
    (where,) = labels(x.shape)
    ends = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    where = np.pad(where, [(max(a, 0), max(b, 0)) for a, b in ends])
    where = where[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(ends, where.shape, strict=True))]
    found = moved(where, x)
    return ops.add(found, np.where(where == 0, float(value), 0.0)) if value else found


def _embedding(weight: Operand, indices: Operand, *ignored: Any) -> Operand:
    return ops.take(weight, indices, axis=0)


# What adds up at indices


def _scatter_add(x: Operand, dim: int, index: Array, source: Operand) -> Operand:
    within = tuple(slice(None) if a == dim % index.ndim else slice(0, n) for a, n in enumerate(index.shape))
    positions = np.take_along_axis(_positions(x)[within], index, axis=dim)
    cut = tuple(slice(0, n) for n in index.shape)
    return added_at(x, positions, source[cut])


def _index_add(x: Operand, dim: int, index: Array, source: Operand, *, alpha: float = 1) -> Operand:
    return added_at(x, np.take(_positions(x), index, axis=dim), _scaled(source, alpha))


def _index_put(x: Operand, indices: Sequence[Any], values: Operand, accumulate: bool = False, *rest: Any) -> Operand:
    if len(indices) == 1 and _is_truth(indices[0]) and np.shape(indices[0]) == np.shape(x) and not np.shape(values):
        return ops.where(indices[0], ops.add(x, values) if accumulate else values, x)
    places = torch.from_numpy(_positions(x))
    chosen = [None if i is None else torch.from_numpy(np.asarray(i)) for i in indices]
    positions = torch.ops.aten.index(places, chosen).numpy()
    source = values
    if np.shape(values) != positions.shape:
        is_value = isinstance(values, Value)
        source = (ops.broadcast_to if is_value else np.broadcast_to)(values, shape=positions.shape)
    if accumulate:
        return added_at(x, positions, source)
    (mine, theirs) = labels(np.shape(x), positions.shape)
    where = mine.copy().reshape(-1)
    where[positions.reshape(-1)] = theirs.reshape(-1)
    return moved(where.reshape(np.shape(x)), x, source)


def _positions(x: Operand) -> Array:
    return np.arange(math.prod(np.shape(x))).reshape(np.shape(x))


# Layers


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
    if axes > 2:
        raise GradwitnessError("a convolution over three axes has no rule")
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
    y = y if weight is None else ops.multiply(y, _shaped(weight, channels))
    return (y if bias is None else ops.add(y, _shaped(bias, channels))), None, None


def _shaped(x: Operand, shape: tuple[int, ...]) -> Operand:
    return ops.reshape(x, shape=shape) if isinstance(x, Value) else np.reshape(x, shape)


def _group_norm(
    x: Value, weight: Operand, bias: Operand, n: int, channels: int, size: int, groups: int, eps: float
) -> Any:
    y = normalized(ops.reshape(x, shape=(n, groups, -1)), (2,), eps=float(eps)).reshape(x.shape)
    each = (1, -1) + (1,) * (x.ndim - 2)
    y = y if weight is None else ops.multiply(y, _shaped(weight, each))
    return (y if bias is None else ops.add(y, _shaped(bias, each))), None, None


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
    if attn_mask is None or _is_truth(attn_mask):
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
    # elementwise
    "add": _add,
    "sub": _sub,
    "rsub": lambda x, y, alpha=1: _sub(y, x, alpha=alpha),
    "mul": _mul,
    "div": _div,
    "true_divide": _div,
    "pow": _pow,
    "square": lambda x: ops.multiply(x, x),
    "maximum": _on_floats(ops.maximum),
    "minimum": _on_floats(ops.minimum),
    "fmax": _on_floats(ops.maximum),
    "fmin": _on_floats(ops.minimum),
    "where": _where,
    "masked_fill": _masked_fill,
    "neg": ops.negative,
    "abs": ops.abs,
    "sign": _sign,
    "exp": ops.exp,
    "exp2": lambda x: ops.exp(ops.multiply(x, math.log(2.0))),
    "log": ops.log,
    "log2": lambda x: ops.divide(ops.log(x), math.log(2.0)),
    "log10": lambda x: ops.divide(ops.log(x), math.log(10.0)),
    "log1p": ops.log1p,
    "expm1": ops.expm1,
    "erf": ops.erf,
    "erfc": lambda x: ops.subtract(1.0, ops.erf(x)),
    "sqrt": ops.sqrt,
    "rsqrt": lambda x: ops.divide(1.0, ops.sqrt(x)),
    "reciprocal": lambda x: ops.divide(1.0, x),
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": lambda x: ops.divide(ops.sin(x), ops.cos(x)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "log_sigmoid_forward": _log_sigmoid,
    "relu": ops.relu,
    "relu6": lambda x: ops.clip(x, min=0.0, max=6.0),
    "leaky_relu": lambda x, negative_slope=0.01: ops.leaky_relu(x, negative_slope=float(negative_slope)),
    "elu": _elu,
    "gelu": lambda x, *, approximate="none": ops.gelu(x, approximate=approximate),
    "silu": ops.silu,
    "mish": lambda x: ops.multiply(x, ops.tanh(ops.softplus(x))),
    "softplus": _softplus,
    "hardtanh": lambda x, low=-1.0, high=1.0: ops.clip(x, min=float(low), max=float(high)),
    "hardsigmoid": lambda x: ops.divide(ops.clip(ops.add(x, 3.0), min=0.0, max=6.0), 6.0),
    "hardswish": lambda x: ops.multiply(x, ops.divide(ops.clip(ops.add(x, 3.0), min=0.0, max=6.0), 6.0)),
    "threshold": _threshold,
    "clamp": _clamp,
    "clamp_min": lambda x, low: _clamp(x, low),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "rrelu_with_noise": _rrelu,
    "zero": lambda x: np.zeros(np.shape(x)),
    "fill": lambda x, value: value if isinstance(value, Value) else np.full(np.shape(x), float(value)),
    "_to_copy": _cast,
    "to": _cast,
    "convert_element_type": _cast,
    # truth
    "eq": ops.equal,
    "ne": ops.not_equal,
    "lt": ops.less,
    "le": ops.less_equal,
    "gt": ops.greater,
    "ge": ops.greater_equal,
    "logical_and": _logical(both),
    "logical_or": _logical(either),
    "logical_not": _logical(negated),
    "bitwise_and": both,
    "bitwise_or": either,
    "bitwise_not": negated,
    # sums and products
    "sum": _reduction(ops.sum),
    "mean": _reduction(ops.mean),
    "amax": _reduction(ops.max),
    "amin": _reduction(ops.min),
    "max": _extremum(ops.max),
    "min": _extremum(ops.min),
    "var": _var,
    "std": lambda x, *args, **options: ops.sqrt(_var(x, *args, **options)),
    "var_mean": _var_mean,
    "prod": _prod,
    "cumsum": _cumsum,
    "cumprod": lambda x, dim, *, dtype=None: cumulative(_float(x), dim, ops.multiply, 1.0),
    "logcumsumexp": lambda x, dim: cumulative(x, dim, _log_add, LEAST),
    "linalg_vector_norm": _vector_norm,
    "_trilinear": _trilinear,
    "mm": _mm,
    "bmm": ops.matmul,
    "mv": ops.matmul,
    "dot": ops.matmul,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "_softmax": lambda x, dim, half_to_float: ops.softmax(x, axis=dim),
    "_log_softmax": lambda x, dim, half_to_float: ops.log_softmax(x, axis=dim),
    "_safe_softmax": lambda x, dim, dtype=None: ops.softmax(x, axis=dim),
    "logsumexp": lambda x, dim, keepdim=False: ops.logsumexp(x, axis=_axes(dim, x), keepdims=keepdim),
    # shapes
    "view": _view,
    "_unsafe_view": _view,
    "reshape": _view,
    "_reshape_alias": _view,
    "t": _swapped,
    "transpose": _swapped,
    "permute": _permuted,
    "expand": _expand,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "select": lambda x, dim, index: _at(x, dim, index),
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "constant_pad_nd": _constant_pad,
    "embedding": _embedding,
    "scatter_add": _scatter_add,
    "index_add": _index_add,
    "index_put": _index_put,
    "_unsafe_index_put": _index_put,
    # layers
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
    "adaptive_avg_pool1d": _adaptive_mean,
}
