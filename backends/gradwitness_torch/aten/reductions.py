"""What aten's sums, products and extrema are in the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.compositions import cumulative, product, reshaped
from gradwitness.ops.value import Value
from gradwitness_torch.aten.operands import Operand, number, scaled

__all__ = ["RULES"]

LEAST = -1e300  # for a maximum: what takes no part in it


def _axes(dim: Any) -> Any:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
        return function(number(x), axis=_axes(dim), keepdims=keepdim)

    return apply


def _var(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Operand:
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased in (None, True) else 0
    return ops.var(x, axis=_axes(dim), keepdims=keepdim, correction=correction)


def _var_mean(x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **options: Any) -> Any:
    return _var(x, dim, unbiased, keepdim, **options), ops.mean(x, axis=_axes(dim), keepdims=keepdim)


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


def _trilinear(
    x: Operand, y: Operand, z: Operand, new_x: Any, new_y: Any, new_z: Any, summed: Any, *rest: Any
) -> Operand:
    """The product of all three, each with new axes at these places, summed over others."""
    wide = []
    for operand, axes in ((x, new_x), (y, new_y), (z, new_z)):
        for axis in sorted(axes):
            operand = reshaped(operand, np.expand_dims(np.empty(np.shape(operand)), axis).shape)
        wide.append(operand)
    return ops.sum(ops.multiply(ops.multiply(wide[0], wide[1]), wide[2]), axis=tuple(summed))


def _cumsum(x: Operand, dim: int, *, dtype: Any = None) -> Operand:
    return cumulative(number(x), dim, ops.add, 0.0)


def _vector_norm(x: Operand, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
    if ord in (1, 2):
        return ops.norm(x, axis=_axes(dim), keepdims=keepdim, ord=int(ord))
    if ord == math.inf:
        return ops.max(ops.abs(x), axis=_axes(dim), keepdims=keepdim)
    powers = ops.power(ops.abs(x), float(ord))
    return ops.power(ops.sum(powers, axis=_axes(dim), keepdims=keepdim), 1 / ord)


def _prod(x: Operand, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Operand:
    return product(x, dim, keepdims=keepdim)


def _addmm(bias: Operand, x: Operand, y: Operand, *, beta: float = 1, alpha: float = 1) -> Operand:
    if beta == alpha == 1 and _is_transposed(y) and np.shape(bias) == (np.shape(y)[1],):
        return ops.linear(x, _transposed(y), bias)
    return ops.add(scaled(bias, beta), scaled(ops.matmul(x, y), alpha))


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


RULES: dict[str, Callable[..., Any]] = {
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
    "cumprod": lambda x, dim, *, dtype=None: cumulative(number(x), dim, ops.multiply, 1.0),
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
    "logsumexp": lambda x, dim, keepdim=False: ops.logsumexp(x, axis=_axes(dim), keepdims=keepdim),
}
