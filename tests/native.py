"""Traced problems as black boxes in torch's own arrays, and what perturbing every op explains of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gradwitness import registry, tree
from gradwitness.arithmetic import RoundingErrors
from gradwitness.evidence.noise_floor import TensorFloor, tensor_floor
from gradwitness.evidence.perturbed_runs import RUNS
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Perturbing

__all__ = ["black_box", "gradients_and_floors"]

Change = Callable[[str, Any], Any]


class _Passed(torch.autograd.Function):
    """x itself, its gradient changed."""

    @staticmethod
    def forward(ctx: Any, x: Any, path: str, change: Change) -> Any:
        ctx.path, ctx.change = path, change
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return ctx.change(ctx.path, g[0]), None, None


def black_box(problem: Problem, change: Change = lambda path, g: g) -> Candidate:
    """The problem's loss as a user's own, over torch's native ops; `change(path, gradient)` plants a fault."""
    loss = registry.backend("torch").lower(problem.graph)
    constants = {path: torch.tensor(x) for path, x in problem.graph.constants.items()}

    def native(params: Any, batch: Any) -> Any:
        passed: Callable[..., Any] = _Passed.apply
        given = {path: passed(x, path, change) for path, x in tree.flatten(params, "params").items()}
        dtype = next(iter(given.values())).dtype
        fixed = {path: x.to(dtype) if x.is_floating_point() else x for path, x in constants.items()}
        return loss({**fixed, **given, **tree.flatten(batch, "batch")})

    return Candidate("torch", native)


def gradients_and_floors(problem: Problem, dtype: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, TensorFloor]]:
    """By path: the gradients by torch in the dtype and in float64, and their floors by perturbing every op."""
    backend, candidate = registry.backend("torch"), Candidate("torch")
    problem = problem.rounded(dtype)
    narrow, wide = (backend.prepare(candidate, problem, dtype=name, device="cpu") for name in (dtype, "float64"))
    assert isinstance(wide, Perturbing)
    errors = RoundingErrors.of(dtype, backend.capabilities.arithmetic(dtype))
    found: dict[str, Any] = narrow.value_and_gradient(problem.primals)[1]
    exact: dict[str, Any] = wide.value_and_gradient(problem.primals)[1]
    runs: list[dict[str, Any]] = [g for _, g in wide.perturbed(problem.primals, errors, runs=RUNS, seed=(0, 1))]
    deviations = {path: np.array([g[path] - exact[path] for g in runs]) / errors.amplification for path in exact}
    return found, exact, {path: tensor_floor(d) for path, d in deviations.items()}
