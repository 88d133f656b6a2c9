"""Complex leaves: each is two real ones, `w.real` and `w.imag`, which a loss sees put together.

So a gradient is the derivative by the real part and that by the imaginary part, whatever a framework makes of them:
torch calls dL/da + i dL/db the gradient by a + ib, jax its conjugate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["PARTS", "is_complex", "joined", "parts_of", "split", "whole"]

PARTS = ("real", "imag")


def is_complex(x: Any) -> bool:
    """Whether an array, of NumPy's or of a framework, holds complex numbers."""
    return "complex" in str(getattr(x, "dtype", ""))


def parts_of(paths: Iterable[str], complex_paths: Collection[str]) -> tuple[str, ...]:
    """The paths, with two for each complex leaf."""
    return tuple(
        part for path in paths for part in ([f"{path}.{name}" for name in PARTS] if path in complex_paths else [path])
    )


def whole(path: str, complex_paths: Collection[str]) -> str:
    """The path of the leaf that a part belongs to; that of any other leaf is its own."""
    base = path.rpartition(".")[0]
    return base if base in complex_paths else path


def split(path: str, x: Any, *, conjugate: bool = False) -> dict[str, Any]:
    """Both parts of a complex array by their paths; None has none. conjugate: whether the second changes its sign."""
    real, imag = (None, None) if x is None else (x.real, -x.imag if conjugate else x.imag)
    return {f"{path}.real": real, f"{path}.imag": imag}


def joined(leaves: Mapping[str, Any], complex_paths: Iterable[str]) -> dict[str, Any]:
    """The leaves, in the arrays of any framework, with complex ones made of their parts, where these are there."""
    found = dict(leaves)
    for path in complex_paths:
        real, imag = (leaves.get(f"{path}.{part}") for part in PARTS)
        if real is not None and imag is not None:
            found[path] = real + 1j * imag
    return found
