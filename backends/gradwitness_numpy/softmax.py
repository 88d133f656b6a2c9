"""Rules of softmax and its logarithms, each stabilised by the maximum."""

from __future__ import annotations

import numpy as np

from gradwitness_numpy.numerics import rounded
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, unary

Axes = tuple[int, ...]


def softmax(x: Array, *, axis: int) -> Array:
    weights = np.exp(x - rounded(x).max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def softmax_vjp(g: Array, y: Array, *, axis: int) -> Array:
    """y * (g - sum(g y)): the Jacobian diag(y) - y y^T applied to g."""
    weighted = g * y
    return weighted - y * weighted.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, *, axis: int) -> Array:
    shifted = x - rounded(x).max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _logsumexp(x: Array, *, axis: Axes, keepdims: bool) -> tuple[Array, Array]:
    peak = rounded(x).max(axis=axis, keepdims=True)
    weights = np.exp(x - peak)
    total = weights.sum(axis=axis, keepdims=True)
    result = np.log(total) + peak
    return (
        result if keepdims else result.reshape([n for i, n in enumerate(x.shape) if i not in axis])
    ), weights / total


def _logsumexp_vjp(g: Array, step: Step) -> Cotangents:
    g = g if step.attributes["keepdims"] else np.expand_dims(g, step.attributes["axis"])
    return (g * step.saved,)


RULES: dict[str, Rule] = {
    "softmax": unary(softmax, lambda g, y, x, *, axis: softmax_vjp(g, y, axis=axis)),
    "log_softmax": unary(log_softmax, lambda g, y, x, *, axis: g - np.exp(y) * g.sum(axis=axis, keepdims=True)),
    "logsumexp": Rule(_logsumexp, _logsumexp_vjp, saves=True),
}
