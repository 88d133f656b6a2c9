"""Rules of losses: each saves the derivative by its prediction, up to the cotangent of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness_numpy.numerics import exact, expect_in_range, sigmoid
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step
from gradwitness_numpy.softmax import log_softmax


def _reduce(losses: Array, reduction: str) -> Array:
    return losses.mean() if reduction == "mean" else losses.sum()


def _weight(losses: Array, reduction: str) -> Any:
    """What each element counts for in the reduced loss."""
    return exact(1.0, losses) / losses.size if reduction == "mean" else 1.0


def _mse(prediction: Array, target: Array, *, reduction: str, half: bool) -> tuple[Array, Array]:
    difference = prediction - target
    total = _reduce(difference * difference, reduction)
    return (total * 0.5 if half else total), difference


def _mse_vjp(g: Array, step: Step) -> Cotangents:
    scale = _weight(step.saved, step.attributes["reduction"]) * (1 if step.attributes["half"] else 2)
    slope = step.saved * (g * scale)
    return slope, -slope if step.needs[1] else None


def _huber(prediction: Array, target: Array, *, delta: float, reduction: str) -> tuple[Array, Array]:
    difference = prediction - target
    limited = np.clip(difference, -delta, delta)
    return _reduce(limited * (difference - limited * 0.5), reduction), limited


def _huber_vjp(g: Array, step: Step) -> Cotangents:
    slope = step.saved * (g * _weight(step.saved, step.attributes["reduction"]))
    return slope, -slope if step.needs[1] else None


def _cross_entropy(
    logits: Array, labels: Array, *, reduction: str, label_smoothing: float, ignore_index: int
) -> tuple[Array, tuple[Array, ...]]:
    log_probabilities = log_softmax(logits, axis=1)
    counted = labels != ignore_index
    rows = np.arange(len(labels))
    picked = np.where(counted, labels, 0)
    expect_in_range("cross_entropy: label", picked, logits.shape[1])
    losses = -log_probabilities[rows, picked]
    if label_smoothing:
        losses = losses - (log_probabilities.mean(axis=1) + losses) * label_smoothing
    total = np.where(counted, losses, 0.0).sum()
    denominator = float(counted.sum()) if reduction == "mean" else 1.0
    return total / denominator, (log_probabilities, counted, picked, denominator)


def _cross_entropy_vjp(g: Array, step: Step) -> Cotangents:
    """softmax(logits) less the smoothed target, in the rows that count."""
    log_probabilities, counted, picked, denominator = step.saved
    smoothing, classes = step.attributes["label_smoothing"], log_probabilities.shape[1]
    slope = np.exp(log_probabilities)
    slope[np.arange(len(picked)), picked] -= 1.0
    if smoothing:
        slope[np.arange(len(picked)), picked] += smoothing
        slope -= exact(smoothing, slope) / classes
    return np.where(counted[:, None], slope, 0.0) * (g / denominator), None


def _binary_cross_entropy(logits: Array, targets: Array, *, reduction: str) -> Array:
    return _reduce(np.maximum(logits, 0.0) - logits * targets + np.log1p(np.exp(-np.abs(logits))), reduction)


def _binary_cross_entropy_vjp(g: Array, step: Step) -> Cotangents:
    logits, targets = step.operands
    scale = g * _weight(logits, step.attributes["reduction"])
    return (
        (sigmoid(logits) - targets) * scale if step.needs[0] else None,
        -logits * scale if step.needs[1] else None,
    )


RULES: dict[str, Rule] = {
    "mse": Rule(_mse, _mse_vjp, saves=True),
    "huber": Rule(_huber, _huber_vjp, saves=True),
    "cross_entropy": Rule(_cross_entropy, _cross_entropy_vjp, saves=True),
    "binary_cross_entropy_with_logits": Rule(_binary_cross_entropy, _binary_cross_entropy_vjp),
}
