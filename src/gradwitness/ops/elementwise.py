"""Elementwise ops. Binary ones broadcast by NumPy's rule."""

from __future__ import annotations

import math
from typing import Any

from gradwitness.ops.samples import boolean, positive, real, sample
from gradwitness.ops.shapes import broadcast, expect, expect_dtype
from gradwitness.ops.value import BOOL, FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import ADDITION, EXACT, ROUNDED, SHARED, Bend, Regions, bends, op, tails

_REAL = [sample(real(2, 3)), sample(real(7)), sample(real(2, 1, 4)), sample(real())]
_WIDE = [sample(real(2, 3, scale=3.0)), sample(real(7)), sample(real(2, 1, 4, scale=2.0))]
_POSITIVE = [sample(positive(2, 3)), sample(positive(7)), sample(positive(2, 1, 4, scale=3.0))]
_PAIRS = [sample(real(2, 3), real(2, 3)), sample(real(4, 1, 3), real(2, 1)), sample(real(5), real(3, 5))]
_SAME_SHAPE = [*_PAIRS, sample(real(3, 2), real(1))]
_DIVISION = [sample(real(2, 3), positive(2, 3)), sample(real(4, 1, 3), positive(2, 1)), sample(real(5), positive(3, 5))]
_POWERS = [
    sample(positive(2, 3), real(2, 3)),
    sample(positive(4, 1, 3), real(2, 1)),
    sample(positive(5), real(3, 5)),
]

_TAILS = tails(-3.0, 3.0)  # of what saturates, or is nearly linear, on both sides
_LARGER = Regions(at=lambda: (0.0,), of=lambda x, y: x - y, names=("with x below y", "with x above y"))


def _float(x: Spec) -> Spec:
    expect_dtype(FLOAT, x=x)
    return x


def _pair(x: Spec, y: Spec) -> Spec:
    expect_dtype(FLOAT, x=x, y=y)
    return Spec(broadcast(x, y))


@op(rounding=ADDITION, samples=_SAME_SHAPE, broadcasts=True)
def add(x: Operand, y: Operand) -> Spec:
    """x + y."""
    return _pair(x, y)


@op(rounding=ADDITION, samples=_SAME_SHAPE, broadcasts=True)
def subtract(x: Operand, y: Operand) -> Spec:
    """x - y."""
    return _pair(x, y)


@op(rounding=ROUNDED, samples=_SAME_SHAPE, broadcasts=True)
def multiply(x: Operand, y: Operand) -> Spec:
    """x * y."""
    return _pair(x, y)


@op(rounding=ROUNDED, samples=_DIVISION, broadcasts=True)
def divide(x: Operand, y: Operand) -> Spec:
    """x / y."""
    return _pair(x, y)


@op(rounding=ROUNDED, samples=_POWERS, broadcasts=True)
def power(x: Operand, y: Operand) -> Spec:
    """x ** y; the derivative by y takes log(x), so x must be positive where y is differentiated."""
    return _pair(x, y)


@op(rounding=EXACT, samples=_PAIRS, broadcasts=True, kink=SHARED, regions=_LARGER)
def maximum(x: Operand, y: Operand) -> Spec:
    """The larger of x and y; where they tie, each gets half of the cotangent."""
    return _pair(x, y)


@op(rounding=EXACT, samples=_PAIRS, broadcasts=True, kink=SHARED, regions=_LARGER)
def minimum(x: Operand, y: Operand) -> Spec:
    """The smaller of x and y; where they tie, each gets half of the cotangent."""
    return _pair(x, y)


@op(
    rounding=EXACT,
    samples=[
        sample(boolean(2, 3), real(2, 3), real(2, 3)),
        sample(boolean(4, 1, 3), real(2, 1), real(3)),
        sample(boolean(3), real(4, 3), real(1)),
    ],
    broadcasts=True,
    regions=Regions(at=lambda: (0.5,), of=lambda condition, x, y: condition, names=("on false", "on true")),
)
def where(condition: Operand, x: Operand, y: Operand) -> Spec:
    """x where the boolean `condition` holds, else y."""
    expect_dtype(BOOL, condition=condition)
    expect_dtype(FLOAT, x=x, y=y)
    return Spec(broadcast(condition, x, y))


@op(rounding=EXACT, samples=_REAL)
def negative(x: Operand) -> Spec:
    """-x."""
    return _float(x)


@op(rounding=EXACT, samples=_REAL, kink=bends(lambda: [Bend(0.0, left=-1.0, right=1.0, own=0.0)]))
def abs(x: Operand) -> Spec:
    """|x|."""
    return _float(x)


@op(rounding=ROUNDED, samples=_REAL)
def exp(x: Operand) -> Spec:
    """e ** x."""
    return _float(x)


@op(rounding=ROUNDED, samples=_POSITIVE)
def log(x: Operand) -> Spec:
    """Natural logarithm."""
    return _float(x)


@op(rounding=ROUNDED, samples=_POSITIVE)
def log1p(x: Operand) -> Spec:
    """log(1 + x), accurate near 0."""
    return _float(x)


@op(rounding=ROUNDED, samples=_REAL, regions=tails(-3.0))
def expm1(x: Operand) -> Spec:
    """exp(x) - 1, accurate near 0."""
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE, regions=_TAILS)
def erf(x: Operand) -> Spec:
    """The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return _float(x)


@op(rounding=ROUNDED, samples=_POSITIVE)
def sqrt(x: Operand) -> Spec:
    """Square root."""
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE)
def sin(x: Operand) -> Spec:
    """Sine of x in radians."""
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE)
def cos(x: Operand) -> Spec:
    """Cosine of x in radians."""
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE, regions=_TAILS)
def tanh(x: Operand) -> Spec:
    """Hyperbolic tangent."""
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE, regions=_TAILS)
def sigmoid(x: Operand) -> Spec:
    """1 / (1 + exp(-x))."""
    return _float(x)


@op(rounding=EXACT, samples=_REAL, kink=bends(lambda: [Bend(0.0, left=0.0, right=1.0, own=0.0)]))
def relu(x: Operand) -> Spec:
    """max(x, 0), with slope 0 at 0."""
    return _float(x)


@op(
    rounding=ROUNDED,
    samples=[*_REAL, sample(real(3, 5), negative_slope=0.3)],
    kink=bends(lambda negative_slope: [Bend(0.0, left=negative_slope, right=1.0, own=negative_slope)]),
)
def leaky_relu(x: Operand, *, negative_slope: float = 0.01) -> Spec:
    """x where x > 0, else negative_slope * x."""
    return _float(x)


def _elu(x: Value, *, alpha: float) -> Value:
    return where(x > 0.0, x, expm1(minimum(x, 0.0)) * alpha)


@op(
    samples=[*_REAL, sample(real(3, 5), alpha=0.7)],
    definition=_elu,
    kink=bends(lambda alpha: [Bend(0.0, left=alpha, right=1.0, own=alpha)]),
    regions=tails(-3.0),
)
def elu(x: Operand, *, alpha: float = 1.0) -> Spec:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return _float(x)


def _gelu(x: Value, *, approximate: str) -> Value:
    if approximate == "none":
        return x * 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
    return x * 0.5 * (1.0 + tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)))


@op(
    samples=[*_WIDE, sample(real(2, 3, scale=3.0), approximate="tanh"), sample(real(7), approximate="tanh")],
    definition=_gelu,
    regions=_TAILS,
)
def gelu(x: Operand, *, approximate: str = "none") -> Spec:
    """x * Phi(x): exact through erf (approximate="none"), or its tanh form (approximate="tanh").

    Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415, section 2.
    """
    expect(approximate in ("none", "tanh"), f'approximate must be "none" or "tanh", got {approximate!r}')
    return _float(x)


@op(rounding=ROUNDED, samples=_WIDE, regions=_TAILS)
def silu(x: Operand) -> Spec:
    """x * sigmoid(x), also called swish."""
    return _float(x)


def _softplus(x: Value) -> Value:
    """The slope is exp(x - y) where y is the rounded result, as jax computes it: far from zero its digits go."""
    y = stop_gradient(maximum(x, 0.0) + log1p(exp(-abs(x))))
    slope = exp(x - y)
    return y + (slope - stop_gradient(slope))


@op(samples=[*_WIDE, sample(real(40, scale=15.0))], definition=_softplus, regions=_TAILS)
def softplus(x: Operand) -> Spec:
    """log(1 + exp(x))."""
    return _float(x)


def _ends(low: float | None, high: float | None, own: float) -> list[Bend]:
    """Of an op that limits to [low, high], where both are given."""
    lower = [] if low is None else [Bend(low, left=0.0, right=1.0, own=own)]
    return lower if high is None else [*lower, Bend(high, left=1.0, right=0.0, own=own)]


@op(
    rounding=EXACT,
    samples=[*_REAL, sample(real(3, 5), min_val=-0.3, max_val=0.8)],
    kink=bends(lambda min_val, max_val: _ends(min_val, max_val, own=0.0)),
)
def hardtanh(x: Operand, *, min_val: float = -1.0, max_val: float = 1.0) -> Spec:
    """x limited to [min_val, max_val], with slope 0 at both ends."""
    expect(min_val < max_val, f"min_val must be below max_val, got {min_val} and {max_val}")
    return _float(x)


@op(
    rounding=EXACT,
    samples=[sample(real(2, 3), min=-0.4), sample(real(7), max=0.5), sample(real(2, 1, 4), min=-0.3, max=0.6)],
    kink=bends(lambda min, max: _ends(min, max, own=1.0)),
)
def clip(x: Operand, *, min: float | None = None, max: float | None = None) -> Spec:
    """x limited to [min, max], with slope 1 at both ends; either bound may be None."""
    expect(min is not None or max is not None, "give min=, max= or both")
    return _float(x)


@op(rounding=EXACT, samples=_REAL)
def stop_gradient(x: Operand) -> Spec:
    """x, through which no cotangent passes."""
    return Spec(x.shape, x.dtype)


def _comparison(name: str, summary: str) -> Any:
    def rule(x: Operand, y: Operand) -> Spec:
        return Spec(broadcast(x, y), BOOL)

    rule.__name__, rule.__doc__ = name, summary
    return op(rounding=EXACT, samples=_PAIRS, broadcasts=True)(rule)


equal = _comparison("equal", "Whether x == y, as a boolean.")
not_equal = _comparison("not_equal", "Whether x != y, as a boolean.")
less = _comparison("less", "Whether x < y, as a boolean.")
less_equal = _comparison("less_equal", "Whether x <= y, as a boolean.")
greater = _comparison("greater", "Whether x > y, as a boolean.")
greater_equal = _comparison("greater_equal", "Whether x >= y, as a boolean.")
