"""What aten's factors and solves of matrices are in the vocabulary.

Determinants, inverses and solves are taken apart into a factor L U, whose rows are exchanged as they are at the point,
and into triangular solves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gradwitness import ops
from gradwitness.compositions import eliminated, exchanged, swapped
from gradwitness.dtypes import Array
from gradwitness.ops.value import Value
from gradwitness_torch.aten.operands import Operand

__all__ = ["APART", "FROM_RESULTS", "RULES"]


def _solve_triangular(
    a: Operand, b: Operand, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Operand:
    if left:
        return ops.triangular_solve(a, b, lower=not upper, unit=unitriangular)
    return swapped(ops.triangular_solve(swapped(a), swapped(b), lower=upper, unit=unitriangular))


def _triangular_solve(
    b: Operand, a: Operand, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    if transpose:
        a, upper = swapped(a), not upper
    return ops.triangular_solve(a, b, lower=not upper, unit=unitriangular), a


def _cholesky(a: Value, upper: bool = False, **ignored: Any) -> Operand:
    factor = ops.cholesky(a)
    return swapped(factor) if upper else factor


def _cholesky_solve(b: Operand, factor: Operand, upper: bool = False) -> Operand:
    """x of L L^T x = b, or of U^T U x = b."""
    lower = swapped(factor) if upper else factor
    half = ops.triangular_solve(lower, b, lower=True, unit=False)
    return ops.triangular_solve(swapped(lower), half, lower=False, unit=False)


def _factored(a: Value, results: Any) -> Any:
    _, pivots, info = (x.cpu().numpy() for x in results)
    return eliminated(exchanged(a, _order(pivots))), pivots, info


def _order(pivots: Array) -> Array:
    """The order into which LAPACK's exchanges, counted from 1, bring the rows."""
    order = np.broadcast_to(np.arange(pivots.shape[-1]), pivots.shape).copy()
    for i in range(pivots.shape[-1]):
        there = pivots[..., i, None] - 1
        here, other = order[..., i].copy(), np.take_along_axis(order, there, -1)[..., 0]
        np.put_along_axis(order, there, here[..., None], -1)
        order[..., i] = other
    return order


# Taken apart, in torch's own ops


def _lu(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    factors, pivots, _ = torch.ops.aten.linalg_lu_factor_ex(a)
    return factors, pivots


def _is_even(pivots: torch.Tensor) -> torch.Tensor:
    """1 where the number of exchanges is even, -1 where it is odd."""
    exchanges = (pivots != torch.arange(1, pivots.shape[-1] + 1, device=pivots.device)).sum(-1)
    return 1 - 2 * (exchanges % 2)


def _determinant(a: torch.Tensor) -> Any:
    factors, pivots = _lu(a)
    return factors.diagonal(dim1=-2, dim2=-1).prod(-1) * _is_even(pivots), factors, pivots


def _log_determinant(a: torch.Tensor) -> Any:
    factors, pivots = _lu(a)
    diagonal = factors.diagonal(dim1=-2, dim2=-1)
    return diagonal.sign().prod(-1) * _is_even(pivots), diagonal.abs().log().sum(-1), factors, pivots


def _solve(a: torch.Tensor, b: torch.Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    factors, pivots = _lu(a if left else a.mT)
    is_vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    columns = b.unsqueeze(-1) if is_vector else b if left else b.mT
    x = _lu_solve(factors, pivots, columns)
    return (
        x.squeeze(-1) if is_vector else x if left else x.mT,
        factors,
        pivots,
        torch.zeros(a.shape[:-2], dtype=torch.int32),
    )


def _lu_solve(
    factors: torch.Tensor, pivots: torch.Tensor, b: torch.Tensor, *, left: bool = True, adjoint: bool = False
) -> Any:
    if not left or adjoint:
        return NotImplemented
    leading = torch.broadcast_shapes(factors.shape[:-2], b.shape[:-2])
    order = torch.from_numpy(_order(pivots.cpu().numpy())).to(b.device)
    order = order.unsqueeze(-1).expand(*leading, *b.shape[-2:])
    b = b.expand(*leading, *b.shape[-2:]).gather(-2, order)
    half = torch.linalg.solve_triangular(factors, b, upper=False, unitriangular=True)
    return torch.linalg.solve_triangular(factors, half, upper=True)


def _inverse(a: torch.Tensor, *, check_errors: bool = False) -> Any:
    ones = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    found, _, _, info = _solve(a, ones.expand(a.shape))
    return found, info


RULES: dict[str, Callable[..., Any]] = {
    "linalg_solve_triangular": _solve_triangular,
    "triangular_solve": _triangular_solve,
    "linalg_cholesky_ex": lambda a, **options: (_cholesky(a, **options), None),
    "cholesky": _cholesky,
    "cholesky_solve": _cholesky_solve,
}
FROM_RESULTS: dict[str, Callable[..., Any]] = {  # which take what the op itself returns, too
    "linalg_lu_factor_ex": _factored,
}
APART: dict[str, Callable[..., Any]] = {
    "_linalg_det": _determinant,
    "_linalg_slogdet": _log_determinant,
    "_linalg_solve_ex": _solve,
    "linalg_lu_solve": _lu_solve,
    "linalg_inv_ex": _inverse,
}
