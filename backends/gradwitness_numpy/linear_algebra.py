"""Rules of factors and solves, by substitution: ufuncs and matmul, which hold for numbers of any kind."""

from __future__ import annotations

import numpy as np

from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, unbroadcast


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _solved(a: Array, b: Array, *, lower: bool, unit: bool) -> Array:
    """Row by row: x_i = (b_i - sum of a_ij x_j over the rows that are known) / a_ii."""
    n = a.shape[-1]
    x = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]), b.dtype)
    for i in range(n) if lower else reversed(range(n)):
        known = slice(0, i) if lower else slice(i + 1, n)
        row = b[..., i, :] - (a[..., i : i + 1, known] @ x[..., known, :])[..., 0, :]
        x[..., i, :] = row if unit else row / a[..., i, i : i + 1]
    return x


def _solved_vjp(g: Array, step: Step) -> Cotangents:
    """By b, the solution z of a^T z = g; by a, the triangle of -z x^T."""
    (a, b), lower, unit = step.operands, step.attributes["lower"], step.attributes["unit"]
    by_b = _solved(_transposed(a), g, lower=not lower, unit=unit)
    if not step.needs[0]:
        return None, unbroadcast(by_b, b)
    kept = np.tri(a.shape[-1], k=-1 if unit else 0, dtype=bool)
    by_a = -(by_b @ _transposed(step.output))
    by_a = np.where(kept if lower else kept.T, by_a, np.zeros(1, by_a.dtype))
    return unbroadcast(by_a, a), unbroadcast(by_b, b) if step.needs[1] else None


def _cholesky(a: Array) -> Array:
    """Column by column: what the columns before leave, over the square root of its first element."""
    a, n = (a + _transposed(a)) * 0.5, a.shape[-1]
    factor = np.zeros(a.shape, a.dtype)
    for j in range(n):
        column = a[..., j:, j] - (factor[..., j:, :j] @ factor[..., j, :j, None])[..., 0]
        pivot = np.sqrt(column[..., :1])
        factor[..., j:, j] = np.concatenate([pivot, column[..., 1:] / pivot], axis=-1)
    return factor


def _cholesky_vjp(g: Array, step: Step) -> Cotangents:
    """The symmetric part of L^-T P L^-1, P the lower triangle of L^T g with half its diagonal.

    Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527, equation 10.
    """
    factor, n = step.output, step.output.shape[-1]
    below = np.tri(n, dtype=bool)
    g = np.where(below, g, np.zeros(1, g.dtype))
    inner = np.where(below, _transposed(factor) @ g, np.zeros(1, g.dtype))
    inner = inner * (1 - 0.5 * np.eye(n))
    left = _solved(_transposed(factor), inner, lower=False, unit=False)
    whole = _transposed(_solved(_transposed(factor), _transposed(left), lower=False, unit=False))
    return ((whole + _transposed(whole)) * 0.5,)


RULES: dict[str, Rule] = {
    "triangular_solve": Rule(_solved, _solved_vjp),
    "cholesky": Rule(_cholesky, _cholesky_vjp),
}
