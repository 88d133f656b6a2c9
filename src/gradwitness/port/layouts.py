"""The ways in which two frameworks lay out one parameter: rules over NumPy's and jax's arrays alike.

Each array brings its functions itself (`__array_namespace__`, the array API standard), so no framework is named here,
and what a rule does can be differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError

__all__ = ["LAYOUTS", "Layout", "Shape", "by_function", "find_layout", "fitting", "flattened"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """One way from torch's array to jax's.

    fits: of torch's shape and jax's, whether it leads from the one to the other. apply: torch's array, and jax's shape.
    """

    name: str
    fits: Callable[[Shape, Shape], bool]
    apply: Callable[[Any, Shape], Any]


def _permuted(axes: Sequence[int], x: Any, shape: Shape) -> Any:
    return x.__array_namespace__().permute_dims(x, tuple(axes))


def _reshaped(x: Any, shape: Shape) -> Any:
    return x.__array_namespace__().reshape(x, shape)


def _permutation(name: str, axes: Sequence[int]) -> Layout:
    def fits(given: Shape, wanted: Shape) -> bool:
        return len(given) == len(axes) and tuple(given[axis] for axis in axes) == wanted

    return Layout(name, fits, partial(_permuted, axes))


def _fits_heads(given: Shape, wanted: Shape) -> bool:
    """(out, in) to (in, heads, width), or to (heads, width, out)."""
    if len(given) != 2 or len(wanted) != 3:
        return False
    return given[::-1] in ((wanted[0], wanted[1] * wanted[2]), (wanted[0] * wanted[1], wanted[2]))


def _fits_reshaped(given: Shape, wanted: Shape) -> bool:
    """A vector in another shape, such as a bias by heads or a scale with axes of 1."""
    return given != wanted and len([n for n in given if n != 1]) <= 1 and math.prod(given) == math.prod(wanted)


LAYOUTS = (
    Layout("same", lambda given, wanted: given == wanted, lambda x, shape: x),
    _permutation("transposed", (1, 0)),
    _permutation("OIW to WIO", (2, 1, 0)),
    _permutation("OIHW to HWIO", (2, 3, 1, 0)),
    _permutation("OIDHW to DHWIO", (2, 3, 4, 1, 0)),
    Layout("transposed, in heads", _fits_heads, lambda x, shape: _reshaped(_permuted((1, 0), x, shape), shape)),
    Layout("reshaped", _fits_reshaped, _reshaped),
)


def fitting(given: Shape, wanted: Shape) -> tuple[Layout, ...]:
    """The layouts that lead from torch's shape to jax's."""
    return tuple(layout for layout in LAYOUTS if layout.fits(given, wanted))


def find_layout(name: str) -> Layout | None:
    """The layout of that name, None if there is none."""
    return next((layout for layout in LAYOUTS if layout.name == name), None)


def by_function(function: Callable[[Any], Any]) -> Layout:
    """A user's own way, a function of torch's array. In NumPy it may move numbers about, and do nothing else."""
    name = getattr(function, "__name__", type(function).__name__).replace("<lambda>", "a function")

    def apply(x: Any, shape: Shape) -> Any:
        if isinstance(x, np.ndarray):
            return function(x)
        try:
            return function(x)
        except TypeError as error:  # NumPy takes no array of a framework that is being differentiated
            places = _places(function, tuple(x.shape))
            if places is None:
                raise GradwitnessError(
                    f"mapping=: {name} hands torch's array over to NumPy, through which no gradient passes, and does "
                    "more than move its numbers about: write it in jax.numpy"
                ) from error
            return x.reshape(-1)[places]

    return Layout(f"by {name}", lambda given, wanted: True, apply)


def _places(function: Callable[[Any], Any], shape: Shape) -> Any:
    """Which of the numbers of an array of this shape a function gives, by flat places; None if it gives others."""
    size = math.prod(shape)
    given = np.asarray(function(np.arange(float(size)).reshape(shape)))
    if not np.all(np.isin(given, np.arange(size))):
        return None
    places, values = given.astype(int), np.random.default_rng(0).standard_normal(size)
    return places if np.array_equal(function(values.reshape(shape)), values[places]) else None


def flattened(channels: int, *extents: int) -> Layout:
    """The weight of a linear layer that reads flattened images: (channels, *extents) in torch, channels last in jax.

    For `mapping=`: {"4.weight": ("dense.kernel", flattened(2, 6, 6))} makes of a weight of shape (out, 72) a kernel of
    shape (72, out), or one of shape (out, 72) where jax's has that shape.
    """
    size = channels * math.prod(extents)

    def fits(given: Shape, wanted: Shape) -> bool:
        return len(given) == 2 and given[1] == size and wanted in (given, given[::-1])

    def apply(x: Any, shape: Shape) -> Any:
        axes = (0, *range(2, 2 + len(extents)), 1)
        moved = _reshaped(_permuted(axes, _reshaped(x, (x.shape[0], channels, *extents)), shape), x.shape)
        return _permuted((1, 0), moved, shape) if shape[0] == size else moved

    return Layout(f"flattened({', '.join(map(str, (channels, *extents)))})", fits, apply)
