"""Factors and solves of matrices: the last two axes are a matrix, the others a stack of them.

Each is defined by elementary ops, row by row or column by column, so that its floor grows with the condition of the
matrix, as its error does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwitness.ops.arrays import concatenate, stack, transpose
from gradwitness.ops.elementwise import sqrt
from gradwitness.ops.samples import definite, dominant, real, sample
from gradwitness.ops.shapes import broadcast, expect, expect_dtype
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import op


def _expect_square(a: Spec) -> None:
    expect(a.ndim >= 2 and a.shape[-1] == a.shape[-2], f"a must have shape (..., n, n), got {list(a.shape)}")


def _triangular_solve(a: Value, b: Value, *, lower: bool, unit: bool) -> Value:
    """Substitution: each row of x from those that are known."""
    n = a.shape[-1]
    known: dict[int, Value] = {}
    for i in range(n) if lower else reversed(range(n)):
        row = b[..., i, :]
        if known:
            others = sorted(known)
            factors = a[..., i : i + 1, others[0] : others[-1] + 1]
            row = row - (factors @ stack([known[j] for j in others], axis=-2))[..., 0, :]
        known[i] = row if unit else row / a[..., i, i : i + 1]
    return stack([known[i] for i in range(n)], axis=-2)


@op(
    samples=[
        sample(dominant(3, 3), real(3, 2), lower=True, unit=False),
        sample(dominant(4, 4), real(4, 1), lower=False, unit=False),
        sample(dominant(2, 3, 3), real(2, 3, 4), lower=False, unit=True),
        sample(dominant(5, 5), real(2, 5, 3), lower=True, unit=True),
    ],
    definition=_triangular_solve,
)
def triangular_solve(a: Operand, b: Operand, *, lower: bool, unit: bool) -> Spec:
    """x with a @ x = b, of one triangle of a (..., n, n) alone; b (..., n, m); `unit`: its diagonal counts as ones."""
    expect_dtype(FLOAT, a=a, b=b)
    _expect_square(a)
    n = a.shape[-1]
    expect(b.ndim >= 2 and b.shape[-2] == n, f"b must have shape (..., {n}, m), got {list(b.shape)}")
    return Spec((*broadcast(Spec(a.shape[:-2]), Spec(b.shape[:-2])), n, b.shape[-1]))


def _cholesky(a: Value) -> Value:
    """Column by column, each of what the columns before it leave of the matrix."""
    n, leading = a.shape[-1], a.shape[:-2]
    a = (a + transpose(a, axes=(*range(len(leading)), -1, -2))) * 0.5
    columns: list[Value] = []
    for j in range(n):
        column = a[..., j:, j]
        if columns:
            before = stack(columns, axis=-1)
            column = column - (before[..., j:, :] @ before[..., j, :][..., None])[..., 0]
        pivot = sqrt(column[..., :1])
        parts: Sequence[Operand] = [pivot, column[..., 1:] / pivot] if j < n - 1 else [pivot]
        columns.append(concatenate([np.zeros((*leading, j)), *parts] if j else parts, axis=-1))
    return stack(columns, axis=-1)


@op(
    samples=[
        sample(definite(3, 3)),
        sample(definite(2, 4, 4)),
        sample(definite(1, 1)),
        sample(definite(5, 5)),
    ],
    definition=_cholesky,
)
def cholesky(a: Operand) -> Spec:
    """The lower triangular L with L @ L^T = (a + a^T) / 2, for a (..., n, n) that is positive definite."""
    expect_dtype(FLOAT, a=a)
    _expect_square(a)
    return Spec(a.shape)
