"""Rules of normalisations: the cotangent loses its mean and its part along the normalised values."""

from __future__ import annotations

import numpy as np

from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, sum_leading

Axes = tuple[int, ...]


def _normalized(x: Array, axes: Axes, eps: float) -> tuple[Array, Array]:
    """x to mean 0 and variance 1 over `axes`, and the factor 1 / sqrt(var + eps)."""
    centred = x - x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    return centred * inverse, inverse


def _normalized_vjp(g: Array, normal: Array, inverse: Array, axes: Axes) -> Array:
    """inverse * (g - mean(g) - normal * mean(g normal)): Ioffe and Szegedy, section 3, simplified."""
    along = (g * normal).mean(axis=axes, keepdims=True)
    return inverse * (g - g.mean(axis=axes, keepdims=True) - normal * along)


def _layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> tuple[Array, tuple[Array, Array]]:
    normal, inverse = _normalized(x, tuple(range(x.ndim - weight.ndim, x.ndim)), eps)
    return normal * weight + bias, (normal, inverse)


def _layer_norm_vjp(g: Array, step: Step) -> Cotangents:
    normal, inverse = step.saved
    weight = step.operands[1]
    split = g.ndim - weight.ndim
    return (
        _normalized_vjp(g * weight, normal, inverse, tuple(range(split, g.ndim))) if step.needs[0] else None,
        sum_leading(g * normal, split) if step.needs[1] else None,
        sum_leading(g, split) if step.needs[2] else None,
    )


def _rms_norm(x: Array, weight: Array, *, eps: float) -> tuple[Array, tuple[Array, Array]]:
    axes = tuple(range(x.ndim - weight.ndim, x.ndim))
    inverse = 1 / np.sqrt((x * x).mean(axis=axes, keepdims=True) + eps)
    normal = x * inverse
    return normal * weight, (normal, inverse)


def _rms_norm_vjp(g: Array, step: Step) -> Cotangents:
    normal, inverse = step.saved
    weight = step.operands[1]
    split = g.ndim - weight.ndim
    scaled = g * weight
    along = (scaled * normal).mean(axis=tuple(range(split, g.ndim)), keepdims=True)
    return (
        inverse * (scaled - normal * along) if step.needs[0] else None,
        sum_leading(g * normal, split) if step.needs[1] else None,
    )


def _channels(vector: Array, ndim: int) -> Array:
    """One value per channel, shaped to broadcast over (N, C, ...)."""
    return vector.reshape(-1, *(1,) * (ndim - 2))


def _batch_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> tuple[Array, tuple[Array, Array]]:
    axes = (0, *range(2, x.ndim))
    normal, inverse = _normalized(x, axes, eps)
    return normal * _channels(weight, x.ndim) + _channels(bias, x.ndim), (normal, inverse)


def _batch_norm_vjp(g: Array, step: Step) -> Cotangents:
    """As `_normalized_vjp`, whose two means are here the cotangents of bias and weight over the count."""
    normal, inverse = step.saved
    axes = (0, *range(2, g.ndim))
    by_weight, by_bias = (g * normal).sum(axis=axes), g.sum(axis=axes)
    if not step.needs[0]:
        return None, by_weight, by_bias
    count = g.size // g.shape[1]
    along, mean, scale = (_channels(v, g.ndim) for v in (by_weight / count, by_bias / count, step.operands[1]))
    return scale * inverse * (g - mean - normal * along), by_weight, by_bias


RULES: dict[str, Rule] = {
    "layer_norm": Rule(_layer_norm, _layer_norm_vjp, saves=True),
    "rms_norm": Rule(_rms_norm, _rms_norm_vjp, saves=True),
    "batch_norm": Rule(_batch_norm, _batch_norm_vjp, saves=True),
}
