"""Shape arithmetic shared by the ops' rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwitness.errors import ShapeError
from gradwitness.ops.value import BOOL, FLOAT, INT, Spec

__all__ = ["axes_as_tuple", "axis_in_range", "broadcast", "expect", "expect_dtype", "pair", "reduced", "window_shape"]


def expect(condition: bool, reason: str) -> None:
    """Raise ShapeError with this reason unless the condition holds."""
    if not condition:
        raise ShapeError(reason)


def expect_dtype(dtype: str, **operands: Spec | None) -> None:
    """Every named operand that is given has this dtype."""
    mend = {
        FLOAT: "Pass floating values (array.astype(float)).",
        INT: "Pass integers: labels, indices.",
        BOOL: "Pass booleans: a comparison, or array.astype(bool).",
    }
    for name, spec in operands.items():
        expect(spec is None or spec.dtype == dtype, f"{name} must be {dtype}, got {spec}. {mend[dtype]}")


def broadcast(*specs: Spec) -> tuple[int, ...]:
    """The common shape of the specs by NumPy's rule: trailing axes match or are 1."""
    ndim = max(spec.ndim for spec in specs)
    shape = []
    for axis in range(-ndim, 0):
        extents = {spec.shape[axis] for spec in specs if spec.ndim >= -axis} - {1}
        if len(extents) > 1:
            sizes = " and ".join(str(list(s.shape)) for s in specs)
            raise ShapeError(f"shapes {sizes} do not broadcast: axis {axis} has extents {sorted(extents)}")
        shape.append(extents.pop() if extents else 1)
    return tuple(shape)


def axis_in_range(axis: Any, ndim: int) -> int:
    """The axis as a non-negative int."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
        raise ShapeError(f"axis must be an integer, got {axis!r}")
    expect(bool(-ndim <= axis < ndim), f"axis {axis} is out of range for {ndim} dimensions")
    return int(axis) % ndim


def axes_as_tuple(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    """`axis` (an int, a tuple, or None for all axes) as a sorted tuple of non-negative ints."""
    axis = attributes["axis"]
    given = range(spec.ndim) if axis is None else axis if isinstance(axis, Sequence) else (axis,)
    axes = sorted(axis_in_range(a, spec.ndim) for a in given)
    expect(len(set(axes)) == len(axes), f"axis {axis} names an axis twice")
    return {**attributes, "axis": tuple(axes)}


def reduced(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """What a reduction over `axes` leaves of the shape."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def pair(value: Any, name: str) -> tuple[int, int]:
    """An int as (int, int); a pair as it is."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    expect(
        len(both) == 2 and all(isinstance(v, int) for v in both), f"{name} must be an int or two ints, got {value!r}"
    )
    return both


def window_shape(
    image: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Height and width of what a sliding window visits (floor mode)."""
    sizes = []
    for extent, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True):
        expect(
            s >= 1 and d >= 1 and p >= 0,
            f"stride and dilation must be at least 1 and padding at least 0: {s}, {d}, {p}",
        )
        reach = d * (k - 1) + 1
        expect(extent + 2 * p >= reach, f"the window reaches over {reach} pixels of an image of {extent} + 2 * {p}")
        sizes.append((extent + 2 * p - reach) // s + 1)
    return sizes[0], sizes[1]
