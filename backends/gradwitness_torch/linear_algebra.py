"""Factors and solves of matrices, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FUNCTIONS"]


def _in_float32(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """16-bit matrices, for which LAPACK has nothing, in float32."""

    def call(*matrices: torch.Tensor, **attributes: Any) -> torch.Tensor:
        if torch.finfo(matrices[0].dtype).bits > 16:
            return function(*matrices, **attributes)
        return function(*(m.float() for m in matrices), **attributes).to(matrices[0].dtype)

    return call


def _triangular_solve(a: torch.Tensor, b: torch.Tensor, *, lower: bool, unit: bool) -> torch.Tensor:
    x: torch.Tensor = torch.linalg.solve_triangular(a, b, upper=not lower, unitriangular=unit)
    return x


def _cholesky(a: torch.Tensor) -> torch.Tensor:
    """Of the symmetric part, as torch reads one triangle alone."""
    factor: torch.Tensor = torch.linalg.cholesky((a + a.mT) / 2)
    return factor


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "triangular_solve": _in_float32(_triangular_solve),
    "cholesky": _in_float32(_cholesky),
}
