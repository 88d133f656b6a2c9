"""Whether a compiled program can remember anything, or answer by what its tracing drew."""

from __future__ import annotations

import re
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
    if any(name in text for name in OPAQUE) or ADDRESS.sub("", text) != ADDRESS.sub("", str(second.jaxpr)):
        return False
    pairs = zip(first.consts, second.consts, strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in pairs)
