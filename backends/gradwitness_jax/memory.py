"""Whether a compiled program can remember anything, or answer by what its tracing drew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["is_forgetful"]

OPAQUE = ("callback", "ffi_call", "custom_call")  # in the names of primitives that run code which may keep state
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def is_forgetful(first: Any, second: Any) -> bool:
    """Whether a program, compiled, gives the same for the same arguments, whatever is called in between.

    first, second: the jaxprs of two tracings. If they are not the same, the function draws numbers or counts its calls
    as it is traced.
    """
    text = str(first.jaxpr)
    if first.effects or any(name in text for name in OPAQUE):
        return False
    if ADDRESS.sub("", text) != ADDRESS.sub("", str(second.jaxpr)):
        return False
    try:
        return all(_same(a, b) for a, b in zip(_constants(first), _constants(second), strict=True))
    except Exception:  # noqa: BLE001  # keys, and other arrays that NumPy cannot read
        return False


def _constants(program: Any) -> Iterator[Any]:
    """Those of a program, and of the programs inside it, which its text does not show."""
    yield from program.consts
    for equation in program.jaxpr.eqns:
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                if hasattr(inner, "consts") and hasattr(inner, "jaxpr"):
                    yield from _constants(inner)


def _same(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
