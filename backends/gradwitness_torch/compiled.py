"""The backend "torch.compile": forward and backward compiled by inductor, each as one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gradwitness.errors import UnsupportedError
from gradwitness.problem import Candidate, Derived, Problem
from gradwitness.protocol import Prepared
from gradwitness_torch.anew import anew
from gradwitness_torch.eager import TorchBackend

__all__ = ["TorchCompileBackend"]


class TorchCompileBackend(TorchBackend):
    """torch.compile of the same loss; a graph break raises, unless the candidate's options say otherwise."""

    name = "torch.compile"
    capabilities = replace(
        TorchBackend.capabilities,
        compiles=True,
        paths=(),
        compiled_paths=(),
        options=("backend", "dynamic", "fullgraph", "mode", "options"),
        shares="torch",
        ways={name: ways[:1] for name, ways in TorchBackend.capabilities.ways.items()},
    )

    def prepare(self, candidate: Candidate, problem: Problem, *, dtype: str, device: str) -> Prepared:
        if isinstance(candidate.loss, Derived):
            raise UnsupportedError("gradients alone: what torch.compile has compiled has no second derivative")
        return super().prepare(candidate, problem, dtype=dtype, device=device)

    def _ready(self, loss: Callable[..., Any], *, options: Mapping[str, Any]) -> Callable[..., Any]:
        import torch

        compiled: Callable[..., Any] = torch.compile(anew(loss), **{"fullgraph": True, "dynamic": False, **options})
        return compiled

    def _gradient_of(self, standalone: Any) -> Callable[..., Any]:
        found: Callable[..., Any] = standalone.compiled_gradient
        return found
