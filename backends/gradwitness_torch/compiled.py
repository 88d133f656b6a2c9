"""The backend "torch.compile": forward and backward compiled by inductor, each as one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import Any

from gradwitness_torch.eager import TorchBackend

__all__ = ["TorchCompileBackend", "anew"]


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
    )

    def _ready(self, loss: Callable[..., Any], *, options: Mapping[str, Any]) -> Callable[..., Any]:
        import torch

        compiled: Callable[..., Any] = torch.compile(anew(loss), **{"fullgraph": True, "dynamic": False, **options})
        return compiled

    def _gradient_of(self, standalone: Any) -> Callable[..., Any]:
        found: Callable[..., Any] = standalone.compiled_gradient
        return found


def anew(function: Any) -> Any:
    """The function with a code object of its own, if it is a plain function.

    torch.compile keeps what it has compiled with the code object, and may take it for that of another function made by
    the same lines: of two lambdas that differ in the autograd.Function whose `apply` they hold, both run the first.
    """
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace()
    made = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(function.__dict__)
    return made
