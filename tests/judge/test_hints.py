"""What a refutation says beside its figures, where it can be known how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw

A = np.random.default_rng(0).standard_normal((4, 4))
SPD = A @ A.T + 4 * np.eye(4)
STACK = np.stack([SPD, SPD + np.eye(4)])
C = np.arange(16.0).reshape(4, 4) / 16
SYMMETRIC = "along symmetric directions it is right"
TRANSPOSED = "right but for being transposed"


def eigenvalues(p: Any, b: Any) -> Any:
    return (torch.linalg.eigh(p["w"])[0] * torch.arange(1.0, 5.0, dtype=p["w"].dtype)).sum()


def root(p: Any, b: Any) -> Any:
    return (torch.linalg.cholesky(p["w"]) * torch.tensor(C, dtype=p["w"].dtype)).sum()


def through_symmetric(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda p, b: loss({"w": (p["w"] + p["w"].mT) / 2}, b)


def by_hand(gradient: Callable[[Any], Any]) -> gw.Candidate:
    """Of sum(c exp(w / 4))."""
    weights = np.exp(C)
    return gw.Candidate(
        "numpy",
        lambda p, b: float((weights * np.exp(p["w"] / 4)).sum()),
        gradient=lambda p, b: {"w": gradient(weights * np.exp(p["w"] / 4) / 4)},
    )


@pytest.mark.parametrize("w", [SPD, STACK], ids=["a matrix", "a stack"])
@pytest.mark.parametrize("loss", [eigenvalues, root])
def test_a_matrix_that_an_op_takes_for_symmetric_is_told_with_the_mend(loss: Any, w: Any) -> None:
    (row,) = gw.verify(gw.Candidate("torch", loss), {"w": w}, dtypes="float64").rows
    assert str(row.verdict) == "disagree"
    assert SYMMETRIC in row.message
    assert "(w + its transpose) / 2" in row.message
    assert gw.verify(gw.Candidate("torch", through_symmetric(loss)), {"w": w}, dtypes="float64")


GRADIENTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "symmetrised": (lambda g: (g + g.T) / 2, SYMMETRIC),
    "the upper triangle": (lambda g: np.triu(g) + np.tril(g, -1).T, SYMMETRIC),
    "transposed": (lambda g: g.T, TRANSPOSED),
    "twice as large": (lambda g: 2 * g, ""),
    "one element off": (lambda g: g + 0.3 * (np.arange(16).reshape(4, 4) == 6), ""),
    "symmetrised, and off": (lambda g: 1.1 * (g + g.T) / 2, ""),
}


@pytest.mark.parametrize("fault", GRADIENTS)
def test_another_fault_of_a_square_matrix_is_not_taken_for_that(fault: str) -> None:
    gradient, says = GRADIENTS[fault]
    (row,) = gw.verify(by_hand(gradient), {"w": A}, dtypes="float64").rows
    assert str(row.verdict) == "disagree"
    assert [s for s in (SYMMETRIC, TRANSPOSED) if s in row.message] == ([says] if says else [])


def test_too_little_to_be_told_apart_by_directions_gets_no_hint() -> None:
    one = 1e-9 * (np.arange(16).reshape(4, 4) == 6)
    candidate = gw.Candidate(
        "numpy", lambda p, b: float((1 / p["w"]).sum()), gradient=lambda p, b: {"w": -(p["w"] ** -2) + one}
    )
    (row,) = gw.verify(candidate, {"w": 0.5 + np.arange(16.0).reshape(4, 4) / 8}, dtypes="float64").rows
    assert str(row.verdict) == "disagree"
    assert "refute it at [1, 2]" in row.message
    assert SYMMETRIC not in row.message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_that_differ_as_a_cast_leaves_them_are_asked_for_one(dtype: Any) -> None:
    def plain(p: Any, b: Any) -> Any:
        return p["w"].tanh().square().sum()

    def cast(p: Any, b: Any) -> Any:
        return torch.tanh(p["w"].to(dtype)).to(p["w"].dtype).square().sum()

    def another(p: Any, b: Any) -> Any:
        return 1.1 * plain(p, b)

    def hardly_another(p: Any, b: Any) -> Any:
        return (1 + 1e-12) * plain(p, b)

    candidates = {f.__name__: gw.Candidate("torch", f) for f in (plain, cast, another, hardly_another)}
    said = {row.candidate: row.message for row in gw.verify(candidates, {"w": A}, dtypes="float64").rows}
    assert "the losses differ" in said["another"]
    assert "the losses differ" in said["hardly_another"]
    assert "cast" not in said["another"] + said["hardly_another"]
    assert "rounding to 16 bits leaves as much: does one of them cast, or run under autocast?" in said["cast"]
