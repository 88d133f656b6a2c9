"""Rules of reductions: the cotangent is spread back over the axes that were summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradwitness_numpy.numerics import exact, is_extremum
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, unary

Axes = tuple[int, ...]


def _kept(reduced: Array, axis: Axes, keepdims: bool) -> Array:
    """The result of a reduction with its axes back, of extent 1."""
    return reduced if keepdims else np.expand_dims(reduced, axis)


def _count(x: Array, axis: Axes) -> int:
    return math.prod(x.shape[a] for a in axis)


def _spread(g: Array, y: Array, x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return np.broadcast_to(_kept(g, axis, keepdims), x.shape)


def _mean_vjp(g: Array, y: Array, x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return np.broadcast_to(_kept(g, axis, keepdims) / _count(x, axis), x.shape)


def _extremum_vjp(g: Array, y: Array, x: Array, *, axis: Axes, keepdims: bool) -> Array:
    """Elements that tie for the extremum share the cotangent equally."""
    winners = is_extremum(x, _kept(y, axis, keepdims))
    share = _kept(g, axis, keepdims) / winners.sum(axis=axis, keepdims=True).astype(x.dtype)
    return np.where(winners, share, 0.0)


def _centred(x: Array, axis: Axes) -> Array:
    return x - x.mean(axis=axis, keepdims=True)


def _var(x: Array, *, axis: Axes, keepdims: bool, correction: float) -> tuple[Array, Array]:
    centred = _centred(x, axis)
    return (centred * centred).sum(axis=axis, keepdims=keepdims) / (_count(x, axis) - correction), centred


def _var_vjp(g: Array, step: Step) -> Cotangents:
    axis, keepdims, correction = (step.attributes[a] for a in ("axis", "keepdims", "correction"))
    scale = exact(2.0, g) / (_count(step.operands[0], axis) - correction)
    return (_kept(g, axis, keepdims) * scale * step.saved,)


def _std(x: Array, **attributes: Any) -> tuple[Array, Array]:
    variance, centred = _var(x, **attributes)
    return np.sqrt(variance), centred


def _std_vjp(g: Array, step: Step) -> Cotangents:
    return _var_vjp(g * 0.5 / _nonzero(step.output), step)


def _nonzero(size: Array) -> Array:
    """Ones in place of zeros: what is divided by a length of 0 is 0 itself."""
    return np.where(size == 0, 1.0, size)


def _norm(x: Array, *, axis: Axes, keepdims: bool, ord: int) -> Array:
    if ord == 1:
        return np.abs(x).sum(axis=axis, keepdims=keepdims)
    return np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))


def _norm_vjp(g: Array, y: Array, x: Array, *, axis: Axes, keepdims: bool, ord: int) -> Array:
    spread = _kept(g, axis, keepdims)
    return spread * np.sign(x) if ord == 1 else spread / _nonzero(_kept(y, axis, keepdims)) * x


def _over_axes(method: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, *, axis, keepdims: method(x, axis=axis, keepdims=keepdims)


RULES: dict[str, Rule] = {
    "sum": unary(_over_axes(np.sum), _spread),
    "mean": unary(_over_axes(np.mean), _mean_vjp),
    "max": unary(_over_axes(np.max), _extremum_vjp),
    "min": unary(_over_axes(np.min), _extremum_vjp),
    "var": Rule(_var, _var_vjp, saves=True),
    "std": Rule(_std, _std_vjp, saves=True),
    "norm": unary(_norm, _norm_vjp),
}
