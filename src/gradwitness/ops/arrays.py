"""Ops that move values about: shape, joining, indexing. None of them rounds going forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradwitness.errors import ShapeError
from gradwitness.ops.samples import labels, real, sample
from gradwitness.ops.shapes import axis_in_range, broadcast, expect, expect_dtype
from gradwitness.ops.value import FLOAT, INT, Operand, Spec
from gradwitness.ops.vocabulary import EXACT, GATHER, op


def _canonical_axis(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, "axis": axis_in_range(attributes["axis"], spec.ndim)}


def _canonical_stack_axis(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, "axis": axis_in_range(attributes["axis"], spec.ndim + 1)}


def _canonical_axes(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    axes = attributes["axes"]
    if axes is None:
        return {"axes": tuple(reversed(range(spec.ndim)))}
    return {"axes": tuple(axis_in_range(a, spec.ndim) for a in axes)}


def _canonical_shape(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    """The target shape with its -1 worked out."""
    shape = attributes["shape"]
    shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        expect(known > 0 and spec.size % known == 0, f"cannot reshape {list(spec.shape)} into {list(shape)}")
        shape = tuple(spec.size // known if n == -1 else n for n in shape)
    return {"shape": shape}


def _canonical_target(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"shape": tuple(attributes["shape"])}


def _canonical_key(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    """The key with one entry per axis: `...` filled with full slices, ints made non-negative.

    Negative steps are refused (torch has none); None adds an axis of extent 1.
    """
    key = attributes["key"]
    key = key if isinstance(key, tuple) else (key,)
    taken = sum(1 for k in key if k is not None and k is not Ellipsis)
    expect(taken <= spec.ndim, f"too many indices: {taken} for {spec.ndim} dimensions")
    expect(sum(1 for k in key if k is Ellipsis) <= 1, "only one ... may stand in an index")
    if not any(k is Ellipsis for k in key):
        key = (*key, Ellipsis)
    entries: list[Any] = []
    axis = 0
    for k in key:
        if k is None:
            entries.append(None)
        elif k is Ellipsis:
            entries += [slice(None)] * (spec.ndim - taken)
            axis += spec.ndim - taken
        else:
            entries.append(_canonical_entry(k, spec.shape[axis]))
            axis += 1
    return {"key": tuple(entries)}


def _canonical_entry(entry: Any, extent: int) -> int | slice:
    if isinstance(entry, slice):
        expect(entry.step is None or entry.step > 0, "slices go forward: the step must be positive")
        return entry
    try:
        position = int(entry.__index__())
    except (AttributeError, TypeError):
        raise ShapeError(
            f"an index is an integer, a slice, None or ...; got {type(entry).__name__}. "
            "To pick entries by an integer array use x[indices] or ops.take(x, indices, axis=...)."
        ) from None
    expect(-extent <= position < extent, f"index {position} is out of range for an axis of {extent}")
    return position % extent


@op(
    rounding=EXACT,
    samples=[
        sample(real(2, 3), axes=None),
        sample(real(2, 3, 4), axes=(1, 2, 0)),
        sample(real(3, 1, 2), axes=(0, 2, 1)),
    ],
    canonical=_canonical_axes,
)
def transpose(x: Operand, *, axes: Sequence[int] | None = None) -> Spec:
    """x with its axes permuted; axes=None reverses them."""
    permutation = tuple(axes or ())
    expect(sorted(permutation) == list(range(x.ndim)), f"axes {permutation} is no permutation of {x.ndim} axes")
    return Spec(tuple(x.shape[a] for a in permutation), x.dtype)


@op(
    rounding=EXACT,
    samples=[sample(real(2, 6), shape=(3, 4)), sample(real(2, 3, 4), shape=(2, -1)), sample(real(5), shape=(5, 1))],
    canonical=_canonical_shape,
)
def reshape(x: Operand, *, shape: int | Sequence[int]) -> Spec:
    """x in another shape, in row-major order; one extent may be -1."""
    target = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    fits = all(isinstance(n, int) and n >= 0 for n in target) and math.prod(target) == x.size
    expect(fits, f"cannot reshape {list(x.shape)} ({x.size} elements) into {list(target)}")
    return Spec(target, x.dtype)


@op(
    rounding=GATHER,
    samples=[
        sample(real(3), shape=(2, 3)),
        sample(real(4, 1, 3), shape=(4, 2, 3)),
        sample(real(2, 1), shape=(3, 2, 5)),
    ],
    canonical=_canonical_target,
)
def broadcast_to(x: Operand, *, shape: Sequence[int]) -> Spec:
    """x repeated along new axes and axes of extent 1; its vjp sums over them."""
    target = tuple(shape)
    expect(broadcast(x, Spec(target)) == target, f"cannot broadcast {list(x.shape)} to {list(target)}")
    return Spec(target, x.dtype)


@op(
    rounding=EXACT,
    samples=[
        sample(real(2, 3), real(4, 3), axis=0),
        sample(real(2, 3), real(2, 1), real(2, 4), axis=-1),
        sample(real(5), real(2), axis=0),
    ],
    canonical=_canonical_axis,
)
def concatenate(*arrays: Operand, axis: int = 0) -> Spec:
    """The arrays joined along an existing axis."""
    expect(len(arrays) > 0, "needs at least one array")
    expect_dtype(arrays[0].dtype, **{f"arrays[{i}]": a for i, a in enumerate(arrays)})
    first = list(arrays[0].shape)
    for other in arrays[1:]:
        fits = other.ndim == len(first) and all(
            n == m for i, (n, m) in enumerate(zip(other.shape, first, strict=True)) if i != axis
        )
        expect(fits, f"all axes but {axis} must match")
    first[axis] = sum(a.shape[axis] for a in arrays)
    return Spec(tuple(first), arrays[0].dtype)


@op(
    rounding=EXACT,
    samples=[
        sample(real(2, 3), real(2, 3), axis=0),
        sample(real(2, 3), real(2, 3), real(2, 3), axis=-1),
        sample(real(4), real(4), axis=1),
    ],
    canonical=_canonical_stack_axis,
)
def stack(*arrays: Operand, axis: int = 0) -> Spec:
    """The arrays, all of one shape, joined along a new axis."""
    expect(len(arrays) > 0, "needs at least one array")
    expect_dtype(arrays[0].dtype, **{f"arrays[{i}]": a for i, a in enumerate(arrays)})
    expect(len({a.shape for a in arrays}) == 1, "all shapes must be equal")
    shape = arrays[0].shape
    return Spec((*shape[:axis], len(arrays), *shape[axis:]), arrays[0].dtype)


@op(
    rounding=EXACT,
    samples=[
        sample(real(4, 5), key=2),
        sample(real(4, 5), key=(slice(1, 3), slice(None, None, 2))),
        sample(real(2, 3, 4), key=(Ellipsis, 1)),
        sample(real(3, 4), key=(slice(None), None, -1)),
    ],
    canonical=_canonical_key,
)
def index(x: Operand, *, key: Any) -> Spec:
    """x[key] for integers, forward slices, None and `...` (what `x[...]` records)."""
    shape: list[int] = []
    axis = 0
    for entry in key:
        if entry is None:
            shape.append(1)
            continue
        if isinstance(entry, slice):
            shape.append(len(range(*entry.indices(x.shape[axis]))))
        axis += 1
    return Spec(tuple(shape), x.dtype)


@op(
    rounding=GATHER,
    samples=[
        sample(real(5, 3), labels(7, high=5), axis=0),
        sample(real(5, 3), labels(2, 4, high=5), axis=0),
        sample(real(2, 4, 3), labels(6, high=4), axis=1),
        sample(real(6), labels(3, 3, high=6), axis=0),
    ],
    canonical=_canonical_axis,
)
def take(x: Operand, indices: Operand, *, axis: int = 0) -> Spec:
    """x[indices] along an axis: an embedding lookup. Repeated indices add their cotangents up."""
    expect_dtype(INT, indices=indices)
    return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)


@op(
    rounding=EXACT,
    samples=[
        sample(labels(5, high=4), num_classes=4),
        sample(labels(2, 3, high=3), num_classes=3),
        sample(labels(1, high=2), num_classes=2),
    ],
)
def one_hot(labels: Operand, *, num_classes: int) -> Spec:
    """1.0 at each label along a new last axis, 0.0 elsewhere; labels out of range give zeros."""
    expect_dtype(INT, labels=labels)
    return Spec((*labels.shape, num_classes), FLOAT)
