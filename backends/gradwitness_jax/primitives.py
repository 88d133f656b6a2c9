"""What jax's primitives are in the vocabulary: the rules by which a loss is captured.

A rule takes the operands (traced values, NumPy arrays for what does not depend on what is differentiated) and the
parameters of an equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from gradwitness import ops
from gradwitness.compositions import (
    NOTHING,
    added_at,
    as_float,
    both,
    convolved,
    cumulative,
    either,
    is_float,
    is_truth,
    labels,
    moved,
    negated,
    product,
    reshaped,
    sign,
    spread_out,
    swapped,
    windows,
)
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.ops.value import FLOAT, Value

__all__ = ["IDENTITIES", "MOVES", "NAMED", "RULES", "added_by_scatter", "by_labels", "multiplied_by_scatter"]

Operand = Any

IDENTITIES = frozenset(
    ("copy", "copy_p", "stop_gradient", "optimization_barrier", "name", "sharding_constraint", "pvary", "device_put")
)
MOVES = frozenset(  # each element of a result is one of an operand's
    ("rev", "gather", "dynamic_slice", "dynamic_update_slice", "scatter", "split", "tile", "unstack")
)
NAMED = {  # functions of jax's own that the vocabulary has as a whole
    "relu": ops.relu,
    "relu6": lambda x: ops.clip(x, min=0.0, max=6.0),
    "silu": ops.silu,
    "softplus": ops.softplus,
}


def by_labels(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """What an equation that only moves elements returns, by what it does with labels in place of floats."""
    floats = [x for x in operands if is_float(x)]
    marks = iter(labels(*(np.shape(x) for x in floats)))
    given = [next(marks) if is_float(x) else x for x in operands]
    found = equation.primitive.bind(*map(jax.numpy.asarray, given), **equation.params)
    found = found if equation.primitive.multiple_results else [found]
    where = [np.asarray(y) for y in found]
    if any(np.any(y < 0) for y in where):
        raise GradwitnessError("an index is out of range")
    return [moved(y, *floats) for y in where]


def added_by_scatter(equation: Any, operands: Sequence[Operand]) -> Operand:
    """What scatter-add returns."""
    x, indices, updates = operands
    where, updates = _scattered_to(equation, np.shape(x), indices, updates)
    return added_at(x, where, updates)


def multiplied_by_scatter(equation: Any, operands: Sequence[Operand]) -> Operand:
    """What scatter-mul returns."""
    x, indices, updates = operands
    where, updates = _scattered_to(equation, np.shape(x), indices, updates)
    if np.unique(where).size < where.size:
        raise GradwitnessError("several factors at one place have no rule")
    flat = np.full(math.prod(np.shape(x)), NOTHING)
    flat[where] = 1 + np.arange(where.size)
    marks = flat.reshape(np.shape(x))
    factors, ones = moved(marks, updates), np.where(marks == NOTHING, 1.0, 0.0)
    return ops.multiply(x, ops.add(factors, ones) if isinstance(factors, Value) else factors + ones)


def _scattered_to(equation: Any, shape: tuple[int, ...], indices: Operand, updates: Operand) -> tuple[Array, Operand]:
    """(the position in row-major order that each update goes to, the updates flat), but for those that are dropped, as
    they fall outside. The transpose of a scatter that adds tells."""
    params = equation.params
    kept = {name: params[name] for name in ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")}

    def scattered(update: Any) -> Any:
        return lax.scatter_add(jax.numpy.zeros(shape), jax.numpy.asarray(indices), update, **kept)

    _, pull = jax.vjp(scattered, jax.numpy.zeros(np.shape(updates)))
    positions = np.arange(1.0, 1 + math.prod(shape)).reshape(shape)
    where = np.asarray(pull(jax.numpy.asarray(positions))[0]).astype(np.int64).reshape(-1) - 1
    (marks,) = labels(np.shape(updates))
    return where[where >= 0], moved(marks.reshape(-1)[where >= 0], updates)


def _cast(x: Operand, *, new_dtype: Any, **ignored: Any) -> Operand:
    """Fewer digits are a rounding, and `1 *` is where it happens."""
    if x.dtype != FLOAT:
        return as_float(x)
    return x * 1.0 if x.builder.narrow else x


def _select(which: Operand, *cases: Operand) -> Operand:
    if len(cases) == 1:
        return cases[0]
    if not is_truth(which):  # the number of a case
        chosen = cases[-1]
        for number, case in reversed(list(enumerate(cases[:-1]))):
            chosen = ops.where(np.asarray(which) == number, case, chosen)
        return chosen
    no, yes = cases
    if is_truth(no):
        return either(both(which, yes), both(negated(which), no))
    return ops.where(which, yes, no)


def _clamp(low: Operand, x: Operand, high: Operand) -> Operand:
    if not any(isinstance(end, Value) or np.ndim(end) for end in (low, high)):
        return ops.clip(x, min=float(low), max=float(high))
    return ops.minimum(ops.maximum(x, low), high)


def _integer_pow(x: Operand, *, y: int) -> Operand:
    if y == 2:
        return ops.multiply(x, x)
    return ops.divide(1.0, x) if y == -1 else ops.power(x, float(y))


def _pow(x: Operand, y: Operand) -> Operand:
    return ops.power(x, y if isinstance(y, Value) else np.asarray(y, np.float64))


def _not_equal(x: Operand, y: Operand) -> Operand:
    if is_truth(x):
        x, y = as_float(x), as_float(y)
    return ops.not_equal(x, y)


# Shapes


def _broadcast(x: Value, *ignored: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int], **more: Any) -> Any:
    placed = [1] * len(shape)
    for axis, target in enumerate(broadcast_dimensions):
        placed[target] = x.shape[axis]
    x = x if x.shape == tuple(placed) else ops.reshape(x, shape=tuple(placed))
    return x if x.shape == tuple(shape) else ops.broadcast_to(x, shape=tuple(shape))


def _slice(x: Value, *, start_indices: Any, limit_indices: Any, strides: Any) -> Operand:
    steps = strides or (1,) * x.ndim
    key = tuple(slice(int(a), int(b), int(s)) for a, b, s in zip(start_indices, limit_indices, steps, strict=True))
    return x[key]


def _pad(x: Operand, filling: Operand, *, padding_config: Any) -> Operand:
    """With zeros between elements, and at the ends, where a negative number cuts off."""
    if isinstance(filling, Value):
        raise GradwitnessError("a padding that depends on what is differentiated has no rule")
    (where,) = labels(np.shape(x))
    for axis, (before, after, between) in enumerate(padding_config):
        where = spread_out(where, axis, between + 1, before=before, after=after)
    found, value = moved(where, x), float(filling)
    return ops.add(found, np.where(where == NOTHING, value, 0.0)) if value else found


# Sums


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, **ignored: function(x, axis=tuple(axes)) if axes else x


def _along_axes(x: Operand, axes: Sequence[int]) -> Operand:
    for axis in sorted(axes, reverse=True):
        x = product(x, axis)
    return x


def _truth_reduction(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, **ignored: ops.greater(kind(as_float(x), axis=tuple(axes)), 0.5)


def _cumulative(combine: Callable[[Any, Any], Any], neutral: float) -> Callable[..., Any]:
    def apply(x: Value, *, axis: int, reverse: bool) -> Operand:
        if not reverse:
            return cumulative(x, axis, combine, neutral)
        return _reversed(cumulative(_reversed(x, axis), axis, combine, neutral), axis)

    return apply


def _reversed(x: Operand, axis: int) -> Any:
    (where,) = labels(np.shape(x))
    return moved(np.flip(where, axis), x)


def _dot(x: Operand, y: Operand, *, dimension_numbers: Any, **ignored: Any) -> Operand:
    """As a product of matrices, or of stacks of them: (batch, free, contracted) times (batch, contracted, free)."""
    (cx, cy), (bx, by) = dimension_numbers
    fx = [a for a in range(len(np.shape(x))) if a not in (*cx, *bx)]
    fy = [a for a in range(len(np.shape(y))) if a not in (*cy, *by)]
    batch, inner = [np.shape(x)[a] for a in bx], math.prod(np.shape(x)[a] for a in cx)
    rows, columns = [np.shape(x)[a] for a in fx], [np.shape(y)[a] for a in fy]
    left = reshaped(_turned(x, (*bx, *fx, *cx)), (*batch, math.prod(rows), inner))
    right = reshaped(_turned(y, (*by, *cy, *fy)), (*batch, inner, math.prod(columns)))
    return reshaped(ops.matmul(left, right), (*batch, *rows, *columns))


def _turned(x: Operand, axes: Sequence[int]) -> Operand:
    if tuple(axes) == tuple(range(len(axes))):
        return x
    return ops.transpose(x, axes=tuple(axes)) if isinstance(x, Value) else np.transpose(x, axes)


def _convolution(
    x: Operand,
    weight: Operand,
    *,
    dimension_numbers: Any,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    feature_group_count: int,
    batch_group_count: int = 1,
    **ignored: Any,
) -> Operand:
    axes = len(window_strides)
    if axes > 3 or batch_group_count != 1:
        raise GradwitnessError("a convolution over four axes, or in groups of examples, has no rule")
    x, weight = _turned(x, dimension_numbers.lhs_spec), _turned(weight, dimension_numbers.rhs_spec)
    if any(d != 1 for d in lhs_dilation) or any(a != b or a < 0 for a, b in padding):
        (where,) = labels(np.shape(x))
        for axis, ((before, after), step) in enumerate(zip(padding, lhs_dilation, strict=True), start=2):
            where = spread_out(where, axis, step, before=before, after=after)
        x, padding = moved(where, x), [(0, 0)] * axes
    found = convolved(
        x,
        weight,
        None,
        stride=tuple(window_strides),
        padding=tuple(a for a, _ in padding),
        dilation=tuple(rhs_dilation),
        groups=feature_group_count,
    )
    return _turned(found, np.argsort(dimension_numbers.out_spec).tolist())


def _windowed(reduce: Callable[..., Any], outside: float) -> Callable[..., Any]:
    def apply(
        x: Value,
        *,
        window_dimensions: Any,
        window_strides: Any,
        padding: Any,
        base_dilation: Any,
        window_dilation: Any,
        **ignored: Any,
    ) -> Operand:
        (where,) = labels(x.shape)
        for axis, ((before, after), step) in enumerate(zip(padding, base_dilation, strict=True)):
            where = spread_out(where, axis, step, before=before, after=after)
        spans = [d * (k - 1) + 1 for k, d in zip(window_dimensions, window_dilation, strict=True)]
        out = [(n - s) // t + 1 for n, s, t in zip(where.shape, spans, window_strides, strict=True)]
        where = windows(where, out, kernel=window_dimensions, stride=window_strides, dilation=window_dilation)
        found, beyond = moved(where, x), np.where(where == NOTHING, outside, 0.0)
        return reduce(ops.add(found, beyond) if np.any(beyond) else found, axis=-1)

    return apply


def _triangular_solve(
    a: Operand, b: Operand, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool, **ignored: Any
) -> Operand:
    """a x = b, or x a = b, which is a^T x^T = b^T."""
    if transpose_a == left_side:
        a, lower = swapped(a), not lower
    if left_side:
        return ops.triangular_solve(a, b, lower=lower, unit=unit_diagonal)
    return swapped(ops.triangular_solve(a, swapped(b), lower=lower, unit=unit_diagonal))


def _without_parameters(rule: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands, **ignored: rule(*operands)


ELEMENTWISE: dict[str, Callable[..., Any]] = {  # whatever their parameters say of dtypes and accuracy
    "add": ops.add,
    "add_any": ops.add,
    "sub": ops.subtract,
    "mul": ops.multiply,
    "div": ops.divide,
    "neg": ops.negative,
    "abs": ops.abs,
    "sign": sign,
    "max": ops.maximum,
    "min": ops.minimum,
    "pow": _pow,
    "square": lambda x: ops.multiply(x, x),
    "exp": ops.exp,
    "exp2": lambda x: ops.exp(ops.multiply(x, math.log(2.0))),
    "expm1": ops.expm1,
    "log": ops.log,
    "log1p": ops.log1p,
    "sqrt": ops.sqrt,
    "rsqrt": lambda x: ops.divide(1.0, ops.sqrt(x)),
    "cbrt": lambda x: ops.multiply(sign(x), ops.power(ops.abs(x), 1 / 3)),
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": lambda x: ops.divide(ops.sin(x), ops.cos(x)),
    "tanh": ops.tanh,
    "logistic": ops.sigmoid,
    "erf": ops.erf,
    "erfc": lambda x: ops.subtract(1.0, ops.erf(x)),
    "select_n": _select,
    "clamp": _clamp,
    "reduce_precision": lambda x: x * 1.0,
    # truth
    "eq": lambda x, y: negated(_not_equal(x, y)) if is_truth(x) else ops.equal(x, y),
    "ne": _not_equal,
    "lt": ops.less,
    "le": ops.less_equal,
    "gt": ops.greater,
    "ge": ops.greater_equal,
    "lt_to": ops.less,  # in the total order of floats, which puts -0 before 0, and NaN last
    "le_to": ops.less_equal,
    "and": both,
    "or": either,
    "not": negated,
    "is_finite": lambda x: ops.less(ops.abs(x), math.inf),
}
RULES: dict[str, Callable[..., Any]] = {
    **{name: _without_parameters(rule) for name, rule in ELEMENTWISE.items()},
    "integer_pow": _integer_pow,
    "convert_element_type": _cast,
    # shapes
    "reshape": lambda x, *, new_sizes, **ignored: ops.reshape(x, shape=tuple(new_sizes)),
    "transpose": lambda x, *, permutation: ops.transpose(x, axes=tuple(permutation)),
    "broadcast_in_dim": _broadcast,
    "squeeze": lambda x, *, dimensions: ops.reshape(
        x, shape=tuple(n for i, n in enumerate(x.shape) if i not in {d % x.ndim for d in dimensions})
    ),
    "expand_dims": lambda x, *, dimensions: reshaped(x, np.expand_dims(np.empty(x.shape), tuple(dimensions)).shape),
    "slice": _slice,
    "concatenate": lambda *arrays, dimension: ops.concatenate(*arrays, axis=int(dimension)),
    "stack": lambda *arrays, axis=0: ops.stack(*arrays, axis=axis),
    "pad": _pad,
    # sums
    "reduce_sum": _reduction(ops.sum),
    "reduce_max": _reduction(ops.max),
    "reduce_min": _reduction(ops.min),
    "reduce_prod": lambda x, *, axes, **ignored: _along_axes(x, axes),
    "reduce_and": _truth_reduction(ops.min),
    "reduce_or": _truth_reduction(ops.max),
    "cumsum": _cumulative(ops.add, 0.0),
    "cumprod": _cumulative(ops.multiply, 1.0),
    "cummax": _cumulative(ops.maximum, -math.inf),
    "cummin": _cumulative(ops.minimum, math.inf),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "triangular_solve": _triangular_solve,
    "cholesky": lambda a, **ignored: ops.cholesky(a),
    "reduce_window_sum": _windowed(ops.sum, 0.0),
    "reduce_window_max": _windowed(ops.max, -math.inf),
    "reduce_window_min": _windowed(ops.min, math.inf),
}


def picked_by_sort(keys: Array, x: Operand, axis: int) -> Operand:
    """x in the order of the keys along an axis."""
    (marks,) = labels(np.shape(x))
    return moved(np.take_along_axis(marks, np.argsort(keys, axis=axis, kind="stable"), axis), x)
