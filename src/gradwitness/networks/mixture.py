"""The Gaussian mixture of the AD benchmarks: a log-likelihood, vectorised."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.dtypes import Array
from gradwitness.networks.initial import bias, generator
from gradwitness.ops import Value
from gradwitness.problem import Problem

__all__ = ["gaussian_mixture"]


def gaussian_mixture(
    *,
    batch: int = 8,
    dimensions: int = 6,
    components: int = 9,
    gamma: float = 0.8,
    extra_freedom: int = 2,
    seed: int = 0,
) -> Problem:
    """Negative log-likelihood of points x (batch, D) under K Gaussians, plus the Wishart prior's own.

    alphas (K,): the mixture's logits; means (K, D); icf (K, D (D + 1) / 2): each factor Q of an
    inverse covariance Q^T Q as the logarithms of its diagonal, then its strictly lower triangle by
    columns. ADBench (Srajer, Kukelova and Fitzgibbon, arXiv:1807.10129) adds the prior's negative
    logarithm to the positive log-likelihood; here both are negative, and constants, which would
    dwarf the rest, are left out. Wishart: `gamma` is the inverse scale, `extra_freedom` the degrees of
    freedom above D + 1.
    """
    rng = generator("gaussian_mixture", seed)
    below = dimensions * (dimensions - 1) // 2
    factors = [bias(rng, components * dimensions), rng.normal(0.0, 0.7 / dimensions**0.5, components * below)]
    params = {
        "alphas": rng.normal(size=components),
        "means": rng.normal(size=(components, dimensions)),
        "icf": np.concatenate([f.reshape(components, -1) for f in factors], axis=1),
    }
    triangle = _triangle(dimensions)

    def loss(params: Any, batch: Any) -> Value:
        diagonals, lower = params["icf"][:, :dimensions], params["icf"][:, dimensions:]
        log_determinants = diagonals.sum(1)
        centred = batch["x"][:, None] - params["means"]  # (batch, K, D)
        inner = params["alphas"] + log_determinants - 0.5 * _squared_distances(centred, diagonals, lower, triangle)
        mixing = ops.logsumexp(params["alphas"], axis=0)
        log_likelihood: Value = ops.logsumexp(inner, axis=1).sum() - centred.shape[0] * mixing
        squares = ops.exp(2.0 * diagonals).sum() + (lower * lower).sum()
        negative_log_prior: Value = 0.5 * gamma**2 * squares - extra_freedom * log_determinants.sum()
        return negative_log_prior - log_likelihood

    return Problem("gaussian_mixture", loss, params, {"x": rng.normal(size=(batch, dimensions))})


def _squared_distances(centred: Value, diagonals: Value, lower: Value, triangle: Array) -> Value:
    """|Q_k (x_n - mean_k)|^2, of shape (batch, K)."""
    components, dimensions = diagonals.shape
    factors = (lower @ triangle).reshape(components, dimensions, dimensions)  # strictly lower parts
    rotated = (factors @ centred[..., None])[..., 0] + ops.exp(diagonals) * centred
    return (rotated * rotated).sum(-1)


def _triangle(dimensions: int) -> Array:
    """Zeros and ones (D (D - 1) / 2, D^2) that put a strictly lower triangle, by columns, into its places."""
    columns, rows = np.triu_indices(dimensions, 1)
    places = np.zeros((len(rows), dimensions * dimensions))
    places[np.arange(len(rows)), rows * dimensions + columns] = 1.0
    return places
