"""What aten's ops that shape, cut, join and index are in the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gradwitness import ops
from gradwitness.compositions import added_at, is_truth, labels, moved
from gradwitness.dtypes import Array
from gradwitness.ops.value import Value
from gradwitness_torch.aten.operands import Operand, number, scaled

__all__ = ["RULES"]


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
    parts = [number(x) for x in tensors if np.shape(x) != (0,)]  # which torch passes over
    return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=dim)


def _stack(tensors: Sequence[Operand], dim: int = 0) -> Operand:
    return ops.stack([number(x) for x in tensors], axis=dim)


def _constant_pad(x: Value, pad: Sequence[int], value: float = 0.0) -> Operand:
    (where,) = labels(x.shape)
    ends = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    where = np.pad(where, [(max(a, 0), max(b, 0)) for a, b in ends])
    where = where[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(ends, where.shape, strict=True))]
    found = moved(where, x)
    return ops.add(found, np.where(where == 0, float(value), 0.0)) if value else found


def _embedding(weight: Operand, indices: Operand, *ignored: Any) -> Operand:
    return ops.take(weight, indices, axis=0)


def _padded(weight: torch.Tensor, indices: torch.Tensor, padding_idx: int = -1, *ignored: Any, **also: Any) -> Array:
    """Where an embedding gives the row of its padding, to which its rule sends no gradient."""
    is_padding = (indices == padding_idx).cpu().numpy()
    return np.broadcast_to(is_padding[..., None], (*indices.shape, weight.shape[-1]))


PARTLY_DETACHED: dict[str, tuple[Callable[..., Array], str]] = {
    "embedding": (_padded, "padding_idx: no gradient passes to that row")
}


# What adds up at indices


def _scatter_add(x: Operand, dim: int, index: Array, source: Operand) -> Operand:
    within = tuple(slice(None) if a == dim % index.ndim else slice(0, n) for a, n in enumerate(index.shape))
    positions = np.take_along_axis(_positions(x)[within], index, axis=dim)
    cut = tuple(slice(0, n) for n in index.shape)
    return added_at(x, positions, source[cut])


def _index_add(x: Operand, dim: int, index: Array, source: Operand, *, alpha: float = 1) -> Operand:
    return added_at(x, np.take(_positions(x), index, axis=dim), scaled(source, alpha))


def _index_put(x: Operand, indices: Sequence[Any], values: Operand, accumulate: bool = False, *rest: Any) -> Operand:
    if len(indices) == 1 and is_truth(indices[0]) and np.shape(indices[0]) == np.shape(x) and not np.shape(values):
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


RULES: dict[str, Callable[..., Any]] = {
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
}
