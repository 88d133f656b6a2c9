"""Reductions over axes: an int, a tuple, or None for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradwitness.ops.arrays import broadcast_to
from gradwitness.ops.elementwise import abs as absolute
from gradwitness.ops.elementwise import sqrt, stop_gradient
from gradwitness.ops.samples import real, sample
from gradwitness.ops.shapes import axes_as_tuple, expect, expect_dtype, reduced
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import BALL, EXACT, REDUCTION, SHARED, op

Axis = int | Sequence[int] | None

_SAMPLES = [
    sample(real(3, 4), axis=None),
    sample(real(3, 4), axis=1, keepdims=True),
    sample(real(2, 5, 3), axis=(0, -1)),
    sample(real(6), axis=0),
    sample(real(), axis=None),
]


def _count(x: Spec | Value, axis: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axis)


# Callers write an Axis; `axes_as_tuple` has made it a tuple before a rule sees it, hence Any.
def _reduce(x: Spec, axis: Any, keepdims: bool) -> Spec:
    expect_dtype(FLOAT, x=x)
    expect(_count(x, axis) > 0, f"nothing to reduce: axis {axis} of {list(x.shape)} is empty")
    return Spec(reduced(x.shape, axis, keepdims))


@op(rounding=REDUCTION, samples=_SAMPLES, canonical=axes_as_tuple)
def sum(x: Operand, *, axis: Axis = None, keepdims: bool = False) -> Spec:
    """Sum over axes."""
    return _reduce(x, axis, keepdims)


def _mean(x: Value, *, axis: tuple[int, ...], keepdims: bool) -> Value:
    return x.sum(axis, keepdims=keepdims) / _count(x, axis)


@op(samples=_SAMPLES, canonical=axes_as_tuple, definition=_mean)
def mean(x: Operand, *, axis: Axis = None, keepdims: bool = False) -> Spec:
    """Mean over axes."""
    return _reduce(x, axis, keepdims)


@op(rounding=EXACT, samples=_SAMPLES, canonical=axes_as_tuple, kink=SHARED)
def max(x: Operand, *, axis: Axis = None, keepdims: bool = False) -> Spec:
    """Maximum over axes; elements that tie share the cotangent equally."""
    return _reduce(x, axis, keepdims)


@op(rounding=EXACT, samples=_SAMPLES, canonical=axes_as_tuple, kink=SHARED)
def min(x: Operand, *, axis: Axis = None, keepdims: bool = False) -> Spec:
    """Minimum over axes; elements that tie share the cotangent equally."""
    return _reduce(x, axis, keepdims)


def _var(x: Value, *, axis: tuple[int, ...], keepdims: bool, correction: float) -> Value:
    # Not differentiating the mean leaves the gradient as it is, since deviations from it add up to 0, but for rounding:
    # formulas that make no use of that pass the rounding of the mean on. And an update of a running mean, element by
    # element, rounds each deviation as a product with 1 does.
    centre = stop_gradient(x.mean(axis, keepdims=True))
    centred = x * 1.0 - broadcast_to(centre, shape=x.shape)
    return (centred * centred).sum(axis, keepdims=keepdims) / (_count(x, axis) - correction)


def _std(x: Value, *, axis: tuple[int, ...], keepdims: bool, correction: float) -> Value:
    return sqrt(_var(x, axis=axis, keepdims=keepdims, correction=correction))


_SPREADS = [*_SAMPLES[:-1], sample(real(4, 3), axis=0, correction=1), sample(real(5), axis=None, correction=1)]


def _spread(x: Spec, axis: Any, keepdims: bool, correction: float) -> Spec:
    result = _reduce(x, axis, keepdims)
    count = _count(x, axis)
    expect(count > correction, f"{count} elements less a correction of {correction} leave nothing to divide by")
    return result


@op(samples=_SPREADS, canonical=axes_as_tuple, definition=_var)
def var(x: Operand, *, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Spec:
    """Variance over axes: the sum of squared deviations over (count - correction)."""
    return _spread(x, axis, keepdims, correction)


@op(samples=_SPREADS, canonical=axes_as_tuple, definition=_std, kink=BALL)
def std(x: Operand, *, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Spec:
    """Standard deviation: the square root of `var`; at a constant its gradient is 0."""
    return _spread(x, axis, keepdims, correction)


def _norm(x: Value, *, axis: tuple[int, ...], keepdims: bool, ord: int) -> Value:
    if ord == 1:
        return absolute(x).sum(axis, keepdims=keepdims)
    return sqrt((x * x).sum(axis, keepdims=keepdims))


@op(samples=[*_SAMPLES, sample(real(3, 4), axis=0, ord=1)], canonical=axes_as_tuple, definition=_norm, kink=BALL)
def norm(x: Operand, *, axis: Axis = None, keepdims: bool = False, ord: int = 2) -> Spec:
    """Vector norm over axes, of order 1 or 2; at 0 its gradient is 0."""
    expect(ord in (1, 2), f"ord must be 1 or 2, got {ord!r}")
    return _reduce(x, axis, keepdims)
