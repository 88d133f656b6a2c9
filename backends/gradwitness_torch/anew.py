"""Functions that torch.compile takes for themselves."""

from __future__ import annotations

from types import FunctionType
from typing import Any

__all__ = ["anew"]


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
