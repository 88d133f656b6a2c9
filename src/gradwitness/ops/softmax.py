"""softmax and its logarithms along one axis, stabilised by the maximum."""

from __future__ import annotations

from typing import Any

from gradwitness.ops.elementwise import exp, log, stop_gradient
from gradwitness.ops.reductions import Axis
from gradwitness.ops.reductions import max as maximum_over
from gradwitness.ops.samples import real, sample
from gradwitness.ops.shapes import axes_as_tuple, axis_in_range, expect_dtype, reduced
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import op

_SAMPLES = [sample(real(3, 4)), sample(real(2, 5, 3, scale=3.0), axis=1), sample(real(7), axis=0)]


def _canonical_axis(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, "axis": axis_in_range(attributes["axis"], spec.ndim)}


def _shifted(x: Value, axis: int | tuple[int, ...]) -> tuple[Value, Value]:
    """x less its maximum, and the maximum: a constant shift, through which nothing is differentiated."""
    peak = stop_gradient(maximum_over(x, axis=axis, keepdims=True))
    return x - peak, peak


def _softmax(x: Value, *, axis: int) -> Value:
    weights = exp(_shifted(x, axis)[0])
    return weights / weights.sum(axis, keepdims=True)


def _log_softmax(x: Value, *, axis: int) -> Value:
    shifted, _ = _shifted(x, axis)
    return shifted - log(exp(shifted).sum(axis, keepdims=True))


def _logsumexp(x: Value, *, axis: tuple[int, ...], keepdims: bool) -> Value:
    # The weights of its gradient are exp(x - y) where y is the rounded result: torch computes them so, and for y far
    # from zero that rounding is what counts. They add up to 1.
    shifted, peak = _shifted(x, axis)
    y = stop_gradient(log(exp(shifted).sum(axis, keepdims=True)) + peak)
    result = y + (exp(x - y).sum(axis, keepdims=True) - 1.0)
    return result if keepdims else result.reshape(reduced(x.shape, axis, keepdims=False))


@op(samples=_SAMPLES, canonical=_canonical_axis, definition=_softmax)
def softmax(x: Operand, *, axis: int = -1) -> Spec:
    """exp(x) over its sum along an axis."""
    expect_dtype(FLOAT, x=x)
    return Spec(x.shape)


@op(samples=_SAMPLES, canonical=_canonical_axis, definition=_log_softmax)
def log_softmax(x: Operand, *, axis: int = -1) -> Spec:
    """log(softmax(x))."""
    expect_dtype(FLOAT, x=x)
    return Spec(x.shape)


@op(
    samples=[
        sample(real(3, 4), axis=-1),
        sample(real(2, 5, 3, scale=3.0), axis=(0, 2), keepdims=True),
        sample(real(7), axis=None),
    ],
    canonical=axes_as_tuple,
    definition=_logsumexp,
)
def logsumexp(x: Operand, *, axis: Axis, keepdims: bool = False) -> Spec:
    """log(sum(exp(x))) over axes."""
    expect_dtype(FLOAT, x=x)
    return Spec(reduced(x.shape, axis, keepdims))  # type: ignore[arg-type]  # a tuple by now
