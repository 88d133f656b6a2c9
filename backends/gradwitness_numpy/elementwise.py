"""Elementwise rules: the derivative of each, by hand."""

from __future__ import annotations

import math
import operator

import numpy as np

from gradwitness_numpy.numerics import erf, gaussian_cdf, gaussian_density, is_extremum, pi, sigmoid, softplus
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, binary, unary, unbroadcast


def _none(g: Array, step: Step) -> Cotangents:
    return [None] * len(step.operands)


def _power_slope(x: Array, y: Array) -> Array:
    """y x^(y - 1), which is 0 for y = 0 also where x is 0."""
    return y * x ** np.where(y == 0, 1, y - 1) if np.ndim(y) else y * x ** (1 if y == 0 else y - 1)


def _larger_share(g: Array, winner: Array, tie: Array) -> Array:
    return np.where(winner, g, np.where(tie, g * 0.5, 0.0))


def _where_vjp(g: Array, step: Step) -> Cotangents:
    condition, x, y = step.operands
    return (
        None,
        unbroadcast(np.where(condition, g, 0.0), x) if step.needs[1] else None,
        unbroadcast(np.where(condition, 0.0, g), y) if step.needs[2] else None,
    )


def _leaky_slope(x: Array, g: Array, negative_slope: float) -> Array:
    return np.where(x > 0, g, g * negative_slope)


_TANH_SCALE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def _gelu(x: Array, *, approximate: str) -> tuple[Array, Array]:
    """x times its share, and the share: Phi(x), or the tanh that is close to it. Phi takes most of the time."""
    share = gaussian_cdf(x) if approximate == "none" else 0.5 * (1 + np.tanh(_TANH_SCALE * (x + _CUBIC * x * x * x)))
    return x * share, share


def _gelu_vjp(g: Array, step: Step) -> Cotangents:
    (x,), share = step.operands, step.saved
    if step.attributes["approximate"] == "none":
        return (g * (share + x * gaussian_density(x)),)
    steepness = 2 * _TANH_SCALE * (1 + _CUBIC * (3 * x * x))
    return (g * (share + x * (share * (1 - share)) * steepness),)


def _silu(x: Array) -> tuple[Array, Array]:
    s = sigmoid(x)
    return x * s, s


def _silu_vjp(g: Array, step: Step) -> Cotangents:
    s = step.saved
    return (g * (s + step.output * (1 - s)),)


def _clip_vjp(g: Array, y: Array, x: Array, *, min: float | None, max: float | None) -> Array:
    return np.where(is_extremum(x, y), g, 0.0)


RULES: dict[str, Rule] = {
    "add": binary(operator.add, lambda g, z, x, y: g, lambda g, z, x, y: g),
    "subtract": binary(operator.sub, lambda g, z, x, y: g, lambda g, z, x, y: -g),
    "multiply": binary(operator.mul, lambda g, z, x, y: g * y, lambda g, z, x, y: g * x),
    "divide": binary(operator.truediv, lambda g, z, x, y: g / y, lambda g, z, x, y: -g * z / y),
    "power": binary(operator.pow, lambda g, z, x, y: g * _power_slope(x, y), lambda g, z, x, y: g * (z * np.log(x))),
    "maximum": binary(
        np.maximum,
        lambda g, z, x, y: _larger_share(g, x > y, x == y),
        lambda g, z, x, y: _larger_share(g, y > x, x == y),
    ),
    "minimum": binary(
        np.minimum,
        lambda g, z, x, y: _larger_share(g, x < y, x == y),
        lambda g, z, x, y: _larger_share(g, y < x, x == y),
    ),
    "where": Rule(np.where, _where_vjp),
    "negative": unary(operator.neg, lambda g, y, x: -g),
    "abs": unary(np.abs, lambda g, y, x: g * np.sign(x)),
    "exp": unary(np.exp, lambda g, y, x: g * y),
    "log": unary(np.log, lambda g, y, x: g / x),
    "log1p": unary(np.log1p, lambda g, y, x: g / (1 + x)),
    "expm1": unary(np.expm1, lambda g, y, x: g * np.exp(x)),
    "erf": unary(erf, lambda g, y, x: g * np.exp(-x * x) * (2 / pi(x) ** 0.5)),
    "sqrt": unary(np.sqrt, lambda g, y, x: g * 0.5 / y),
    "sin": unary(np.sin, lambda g, y, x: g * np.cos(x)),
    "cos": unary(np.cos, lambda g, y, x: -g * np.sin(x)),
    "tanh": unary(np.tanh, lambda g, y, x: g * (1 - y * y)),
    "sigmoid": unary(sigmoid, lambda g, y, x: g * (y * (1 - y))),
    "relu": unary(lambda x: np.maximum(x, 0.0), lambda g, y, x: g * (x > 0)),
    "leaky_relu": unary(
        lambda x, *, negative_slope: np.where(x > 0, x, x * negative_slope),
        lambda g, y, x, *, negative_slope: _leaky_slope(x, g, negative_slope),
    ),
    "elu": unary(
        lambda x, *, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        lambda g, y, x, *, alpha: np.where(x > 0, g, g * alpha * np.exp(np.minimum(x, 0.0))),
    ),
    "gelu": Rule(_gelu, _gelu_vjp, saves=True),
    "silu": Rule(_silu, _silu_vjp, saves=True),
    "softplus": unary(softplus, lambda g, y, x: g * sigmoid(x)),
    "hardtanh": unary(
        lambda x, *, min_val, max_val: np.minimum(np.maximum(x, min_val), max_val),
        lambda g, y, x, *, min_val, max_val: g * ((x > min_val) & (x < max_val)),
    ),
    "clip": unary(lambda x, *, min, max: np.clip(x, min, max), _clip_vjp),
    "stop_gradient": Rule(lambda x: x, _none),
    "equal": Rule(operator.eq, _none),
    "not_equal": Rule(operator.ne, _none),
    "less": Rule(operator.lt, _none),
    "less_equal": Rule(operator.le, _none),
    "greater": Rule(operator.gt, _none),
    "greater_equal": Rule(operator.ge, _none),
}
