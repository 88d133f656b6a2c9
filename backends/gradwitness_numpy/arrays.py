"""Rules that move values about: the vjp of a copy is a copy back, of a repeat a sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness_numpy.numerics import expect_in_range, scatter_add
from gradwitness_numpy.rule import Array, Cotangents, Rule, Slab, Step, unary, unbroadcast


def _concatenate_vjp(g: Array, step: Step) -> Cotangents:
    axis = step.attributes["axis"]
    ends = np.cumsum([a.shape[axis] for a in step.operands])
    return np.split(g, ends[:-1], axis=axis)


def _stack_vjp(g: Array, step: Step) -> Cotangents:
    return list(np.moveaxis(g, step.attributes["axis"], 0))


def _index_vjp(g: Array, step: Step) -> Cotangents:
    return (Slab(step.operands[0].shape, step.attributes["key"], g),)


def _take_vjp(g: Array, step: Step) -> Cotangents:
    """Rows picked several times collect the sum of their cotangents."""
    x, indices = step.operands
    axis = step.attributes["axis"]
    rows_first = np.moveaxis(g, range(axis, axis + indices.ndim), range(indices.ndim))
    rest = rows_first.shape[indices.ndim :]
    summed = scatter_add((x.shape[axis], *rest), indices.reshape(-1), rows_first.reshape(-1, *rest))
    return np.moveaxis(summed, 0, axis), None


def _one_hot(labels: Array, *, num_classes: int, dtype: Any = np.float64) -> Array:
    return (np.asarray(labels)[..., None] == np.arange(num_classes)).astype(dtype)


def _take(x: Array, indices: Array, *, axis: int) -> Array:
    expect_in_range("take: index", indices, x.shape[axis])
    return np.take(x, indices, axis=axis)


RULES: dict[str, Rule] = {
    "transpose": unary(
        lambda x, *, axes: np.transpose(x, axes), lambda g, y, x, *, axes: np.transpose(g, np.argsort(axes))
    ),
    "reshape": unary(lambda x, *, shape: np.reshape(x, shape), lambda g, y, x, *, shape: np.reshape(g, np.shape(x))),
    "broadcast_to": unary(lambda x, *, shape: np.broadcast_to(x, shape), lambda g, y, x, *, shape: unbroadcast(g, x)),
    "concatenate": Rule(lambda *arrays, axis: np.concatenate(arrays, axis=axis), _concatenate_vjp),
    "stack": Rule(lambda *arrays, axis: np.stack(arrays, axis=axis), _stack_vjp),
    "index": Rule(lambda x, *, key: x[key], _index_vjp),
    "take": Rule(_take, _take_vjp),
    "one_hot": Rule(_one_hot, lambda g, step: (None,)),
}
