"""The parts of a gradient over which it is averaged: where kernels go wrong.

A kernel is wrong in one row or head, at its border, in the last block of a loop that does not divide the length, where
a mask or a sign takes another branch. A family has parts of one kind, and of one shape of gradient always the same
number of them, so that what is added up over them at several points may be added up once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradwitness.dtypes import Array

__all__ = ["BLOCKS", "Family", "families"]

BLOCKS = (16, 32, 64, 128)  # elements that a kernel takes at a time along an axis
MATRIX = 2  # axes


@dataclass(frozen=True)
class Family:
    """sums: of an array as large as the gradient over each part. name: of the part with that number."""

    size: int
    sums: Callable[[Array], Array]
    name: Callable[[int], str]


def families(operand: Array, gradient: Array, masks: Mapping[str, Array]) -> list[Family]:
    """Those of the gradient of an operand, of its shape. masks: arrays of booleans that the loss is given, by path."""
    return [
        Family(1, lambda x: np.array([x.sum()]), lambda i: "on average"),
        *_along_axes(operand.shape),
        *_leading(operand.shape),
        *_chosen(dict(_border(operand.shape))),
        *_chosen(dict(_last_blocks(operand.shape))),
        *_chosen(
            {
                "where it is negative": gradient < 0,
                "where it is positive": gradient > 0,
                "where the operand is negative": operand < 0,
                "where the operand is positive": operand > 0,
            }
        ),
        *_chosen(dict(_masked(operand.shape, masks))),
    ]


def _along_axes(shape: Sequence[int]) -> Iterator[Family]:
    """Each row, column, head or channel: the slices at one index of an axis. Of a vector these are single elements."""
    for axis, extent in enumerate(shape):
        if 1 < extent < math.prod(shape):
            others = tuple(a for a in range(len(shape)) if a != axis)
            named = ", ".join("{}" if a == axis else ":" for a in range(len(shape)))
            yield Family(extent, partial(np.sum, axis=others), f"in [{named}]".format)


def _leading(shape: Sequence[int]) -> Iterator[Family]:
    """Each vector along the last axis, and each matrix of the last two, where several axes lead to them."""
    for trailing in range(1, min(len(shape) - 1, MATRIX + 1)):
        leading = tuple(shape[:-trailing])
        if sum(extent > 1 for extent in leading) > 1:
            axes = tuple(range(len(leading), len(shape)))
            yield Family(math.prod(leading), partial(_flat_sums, axes), partial(_leading_name, leading, trailing))


def _flat_sums(axes: tuple[int, ...], x: Array) -> Array:
    return np.asarray(np.sum(x, axis=axes)).reshape(-1)


def _leading_name(leading: tuple[int, ...], trailing: int, number: int) -> str:
    place = [str(int(i)) for i in np.unravel_index(number, leading)]
    return f"in [{', '.join([*place, *':' * trailing])}]"


def _border(shape: Sequence[int]) -> Iterator[tuple[str, Array]]:
    if len(shape) >= MATRIX and min(shape[-MATRIX:]) > MATRIX:
        found = np.ones(shape, bool)
        found[..., 1:-1, 1:-1] = False
        yield "at the border", found


def _last_blocks(shape: Sequence[int]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """What is left of an axis for the last block, whole or not."""
    for axis, extent in enumerate(shape):
        for left in sorted({extent % block or block for block in BLOCKS if block < extent}):
            where = tuple(slice(extent - left, None) if a == axis else slice(None) for a in range(axis + 1))
            yield f"in the last {left} along axis {axis}", where


def _masked(shape: Sequence[int], masks: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Where a mask of the gradient's own shape, or of its first or last axes, is true, and where it is not."""
    for path, mask in masks.items():
        spread = _spread(mask, shape)
        if spread is not None:
            yield f"where {path} is true", spread
            yield f"where {path} is false", ~spread


def _spread(mask: Array, shape: Sequence[int]) -> Array | None:
    missing = len(shape) - mask.ndim
    for before in (0, missing):
        aligned = (*(1,) * before, *mask.shape, *(1,) * (missing - before))
        if 0 < mask.ndim <= len(shape) and all(n in (1, full) for n, full in zip(aligned, shape, strict=True)):
            return np.broadcast_to(mask.reshape(aligned), tuple(shape))
    return None


def _chosen(where: Mapping[str, Array | tuple[slice, ...]]) -> Iterator[Family]:
    """A family of parts that are named one by one."""
    if where:
        names = list(where)
        yield Family(len(names), partial(_sums_at, list(where.values())), names.__getitem__)


def _sums_at(places: Sequence[Array | tuple[slice, ...]], x: Array) -> Array:
    return np.array([x[place].sum() for place in places])
