"""Losses: one number comes out."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer, softmax

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Huber", "MeanSquaredError"]


class CrossEntropy(Layer):
    """Of logits with labels, averaged over those examples whose label is not 0."""

    floats = {"x": "nk"}
    integers = {"labels": "n|k"}
    sizes = {"n": 12, "k": 6}
    wide = {"n": 30, "k": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, labels = inputs
        shifted = x - xp.amax(x, -1)[:, None]
        logp = shifted - xp.log(xp.exp(shifted).sum(axis=-1))[:, None]
        target = xp.one_hot(labels, x.shape[1], x)
        counted = 1 - target[:, 0]
        return -((logp * target).sum(axis=-1) * counted).sum() / counted.sum(), (x, target, counted)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, target, counted = saved
        dx = softmax(xp, x) - target
        dx = dx * counted[:, None]
        return (g * dx / counted.sum(),)


class MeanSquaredError(Layer):
    """The mean over all elements, without a half; by the prediction and by the target."""

    floats = {"x": "ni", "target": "ni"}
    sizes = {"n": 10, "i": 7}
    wide = {"n": 30, "i": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, target = inputs
        difference = x - target
        return (difference**2).mean(), difference

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        difference = saved
        count = difference.shape[0] * difference.shape[1]
        dx = g * 2 * difference / count
        return dx, -dx


class BinaryCrossEntropy(Layer):
    """Of logits with targets between 0 and 1, summed over the outputs and averaged over the batch."""

    floats = {"x": "ni", "target": "ni"}
    sizes = {"n": 10, "i": 7}
    wide = {"n": 30, "i": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, target = inputs
        terms = xp.where(x > 0, x, 0.0) - x * target + xp.log1p(xp.exp(-abs(x)))
        return terms.sum() / x.shape[0], (x, target)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, target = saved
        e = xp.exp(-abs(x))
        p = xp.where(x > 0, 1.0, e) / (1 + e)
        dx = g * (p - target) / x.shape[0]
        dtarget = -g * x / x.shape[0]
        return dx, dtarget


class Huber(Layer):
    """Squared up to a distance of one, linear beyond it (Huber 1964); the mean."""

    floats = {"x": "ni"}
    sizes = {"n": 10, "i": 7}
    wide = {"n": 30, "i": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        (x,) = inputs
        size = abs(x)
        return xp.where(size < 1, 0.5 * x**2, size - 0.5).mean(), x

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x = saved
        slope = xp.where(abs(x) < 1, x, xp.sign(x))
        return (g * slope / (x.shape[0] * x.shape[1]),)
