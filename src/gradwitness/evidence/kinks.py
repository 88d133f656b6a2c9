"""Where the loss has no single derivative: the units at a kink, and the slopes that each of them may use.

A unit is one element of an op's result. It is at a kink if its operands are within rounding of one. There the op may
use any element of the convex hull of its gradients at nearby smooth points (Clarke, "Optimization and Nonsmooth
Analysis" (1983), theorem 2.5.1): a slope of a bend, weights of a tie, a vector of the ball of a norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness.dtypes import Array, find_dtype
from gradwitness.graph import LITERAL, Graph, Node
from gradwitness.ops import find_op

__all__ = ["Choice", "Kinked", "Operands", "conventions", "drawn", "find_kinks", "members", "projected", "substitute"]

Choice = tuple[Array, ...]  # the slopes of each Kinked, in order
Operands = Mapping[int, Sequence[Any]]  # what each op was given, by node id

CLOSE = 16.0  # spreads of rounding within which a unit counts as at its kink


@dataclass(frozen=True)
class Kinked:
    """The units of one node that are at a kink, place by place.

    At place j the op sends `slopes[j]` times the cotangent of its unit `unit[j]` to the element `element[j]` of its
    operand `operand[j]`; units and elements are flat indices. low, high: what a slope is between, within the hull
    that `kind` ("bend", "tie" or "ball") stands for. start: the slopes of the vocabulary, or of the side on which the
    unit is. exact: whether it is at the kink also in float64. where: the kink in words.
    """

    node: Node
    kind: str
    unit: Array
    operand: Array
    element: Array
    low: Array
    high: Array
    start: Array
    exact: Array
    where: str

    def only(self, chosen: Array) -> Kinked:
        """The same at some of the places."""
        picked = {name: getattr(self, name)[chosen] for name in _PLACES}
        return replace(self, **picked)

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(np.unique(self.unit))


_PLACES = ("unit", "operand", "element", "low", "high", "start", "exact")


def find_kinks(graph: Graph, wrt: Sequence[str], operands: Operands, spreads: Operands, dtype: str) -> list[Kinked]:
    """The units within rounding of a kink, of the nodes through which a cotangent flows.

    operands: what each op was given, in float64. spreads: by how much rounding in `dtype` moves it, of the same
    shapes (None: not at all).
    """
    active = graph.active(tuple(wrt))
    found = []
    for node in graph.nodes:
        kink = find_op(node.op).kink if node.is_op else None
        if kink is None or node.id not in active or kink.kind == "smooth":
            continue
        given = _Given(node, operands[node.id], spreads[node.id], dtype)
        found += [k for k in _FINDERS[kink.kind](given) if k.unit.size]
    return found


def substitute(kinked: Sequence[Kinked], choice: Choice) -> Callable[..., Sequence[Any]]:
    """A hook for `Interpreter.backward` that gives the units at a kink these slopes.

    What an op sends is linear in its cotangent: without the units at a kink it is as ever, and theirs is added.
    """
    chosen: dict[int, list[tuple[Kinked, Array]]] = {}
    for k, slopes in zip(kinked, choice, strict=True):
        chosen.setdefault(k.node.id, []).append((k, slopes))

    def on_cotangent(node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        if node.id not in chosen:
            return sent
        g = np.asarray(cotangent).reshape(-1)
        rest = np.array(cotangent, order="C")  # so that a flat view of it is one
        for k, _ in chosen[node.id]:
            rest.reshape(-1)[k.unit] = 0.0
        parts = [None if part is None else np.array(part, order="C") for part in step.pull(rest)]
        for k, slopes in chosen[node.id]:
            for i in np.unique(k.operand):
                here, part = k.operand == i, parts[i]
                if part is not None:
                    np.add.at(part.reshape(-1), k.element[here], g[k.unit[here]] * slopes[here])
        return parts

    return on_cotangent


def conventions(k: Kinked) -> dict[str, Array]:
    """The slopes that a framework may be expected to use at all its units alike, by name."""
    if k.kind == "bend":
        return {"low": k.low, "middle": (k.low + k.high) / 2, "high": k.high}
    if k.kind == "tie":
        first, last = np.zeros(k.unit.size), np.zeros(k.unit.size)
        for places in _by_unit(k):
            first[places[0]], last[places[-1]] = 1.0, 1.0
        return {"first": first, "share": 1.0 / np.bincount(k.unit)[k.unit], "last": last}
    return {"zero": np.zeros(k.unit.size)}


def drawn(k: Kinked, rng: np.random.Generator) -> Array:
    """Slopes drawn from the hull."""
    if k.kind == "bend":
        return rng.uniform(k.low, k.high)
    if k.kind == "tie":
        weights = rng.exponential(size=k.unit.size)
        shares: Array = weights / np.bincount(k.unit, weights)[k.unit]
        return shares
    return projected(k, rng.uniform(k.low, k.high))


def projected(k: Kinked, slopes: Array) -> Array:
    """Slopes brought into the hull: those within it stay as they are, up to rounding."""
    slopes = np.clip(slopes, k.low, k.high)
    if k.kind == "tie":
        total = np.bincount(k.unit, slopes)[k.unit]
        slopes = np.where(total > 0, slopes / np.where(total > 0, total, 1.0), k.start)
    if k.kind == "ball":
        if k.node.op == "std":
            slopes = slopes - (np.bincount(k.unit, slopes) / np.maximum(np.bincount(k.unit), 1))[k.unit]
        length = np.sqrt(np.bincount(k.unit, slopes**2))[k.unit]
        slopes = slopes * np.minimum(1.0, k.high / np.where(length > 0, length, 1.0))
    return slopes


def _by_unit(k: Kinked) -> Iterator[Array]:
    """The places of each unit, in order."""
    order = np.argsort(k.unit, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(k.unit[order])) + 1)


@dataclass(frozen=True)
class _Given:
    """A node with what it was given."""

    node: Node
    operands: Sequence[Any]
    spreads: Sequence[Any]
    dtype: str

    @property
    def roundoff(self) -> float:
        return find_dtype(self.dtype).unit_roundoff

    @property
    def narrowing(self) -> float:
        """How much finer float64 rounds."""
        return find_dtype("float64").unit_roundoff / self.roundoff

    def flat(self, operand: int) -> tuple[Array, Array]:
        """An operand's elements and their tolerances; a literal is as large as the result, and rounded to the dtype."""
        source, x = self.node.inputs[operand], np.asarray(self.operands[operand], np.float64).reshape(-1)
        is_literal = source is not None and source.op == LITERAL
        if not is_literal:
            return x, CLOSE * np.asarray(self.spreads[operand]).reshape(-1)
        size = (math.prod(self.node.spec.shape),)
        return np.broadcast_to(x, size), np.broadcast_to(CLOSE * self.roundoff * np.abs(x), size)


def _bends(given: _Given) -> list[Kinked]:
    kink, attributes = find_op(given.node.op).kink, given.node.attributes
    assert kink is not None
    x, tolerance = given.flat(0)
    found = []
    for bend in kink.bends(attributes):
        if bend.left != bend.right:
            gap, close = x - bend.at, tolerance + CLOSE * given.roundoff * abs(bend.at)  # attributes are rounded too
            near = np.flatnonzero(np.abs(gap) <= close)
            start = np.where(gap > 0, bend.right, np.where(gap < 0, bend.left, bend.own))[near]
            exact = np.abs(gap[near]) <= close[near] * given.narrowing
            low, high = (np.full(near.size, end) for end in sorted((bend.left, bend.right)))
            zeros, where = np.zeros(near.size, int), f"at {bend.at:g}"
            found.append(Kinked(given.node, "bend", near, zeros, near, low, high, start, exact, where))
    return found


def _ties(given: _Given) -> list[Kinked]:
    node = given.node
    kink = find_op(node.op).kink
    assert kink is not None
    operand, element = members(node)
    values = np.full(element.shape, -np.inf)
    tolerance = np.zeros(element.shape)
    for i in range(len(given.operands)):
        here = (operand == i) & (element >= 0)
        x, close = given.flat(i)
        values[here] = -x[element[here]] if node.op.startswith("min") else x[element[here]]
        tolerance[here] = close[element[here]]
    rows = np.arange(len(values))
    winner = np.argmax(values, axis=1)
    gap = values[rows, winner][:, None] - values
    tolerance = np.hypot(tolerance, tolerance[rows, winner][:, None])
    near, exact = gap <= tolerance, gap <= tolerance * given.narrowing
    near &= (near.sum(axis=1) > 1)[:, None]
    tied = gap == 0
    start = tied / tied.sum(axis=1, keepdims=True)
    if not kink.shares:
        start = np.zeros(gap.shape)
        start[rows, winner] = 1.0  # the first of those that tie
    exact &= (exact.sum(axis=1) > 1)[:, None]
    unit, member = np.nonzero(near)
    n = len(unit)
    place = (unit, member)
    low, high = np.zeros(n), np.ones(n)
    known = exact[place]
    return [Kinked(node, "tie", unit, operand[place], element[place], low, high, start[place], known, "at a tie")]


def members(node: Node) -> tuple[Array, Array]:
    """(operand, element) of each unit's members, a row for each unit; the element of padding is -1."""
    first = node.inputs[0]
    assert first is not None
    if node.op in ("maximum", "minimum"):
        each = np.arange(math.prod(node.spec.shape))
        return np.tile([0, 1], (each.size, 1)), np.stack([each, each], axis=1)
    if node.op == "max_pool2d":
        element = _windows(first.spec.shape, **node.attributes)
    else:
        element = _reduced(first.spec.shape, node.attributes["axis"])
    return np.zeros(element.shape, int), element


def _reduced(shape: tuple[int, ...], axis: tuple[int, ...]) -> Array:
    """Which elements each element of a reduction over these axes is made of."""
    kept = [a for a in range(len(shape)) if a not in axis]
    count = math.prod(shape[a] for a in axis)
    return np.arange(math.prod(shape)).reshape(shape).transpose(*kept, *axis).reshape(-1, count)


def _windows(shape: tuple[int, ...], *, kernel_size: Any, stride: Any, padding: Any) -> Array:
    """Which elements each window of images is made of, in row-major order."""
    (ph, pw), elements = padding, np.arange(math.prod(shape)).reshape(shape)
    padded = np.pad(elements, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_size, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]].reshape(-1, math.prod(kernel_size))


def _balls(given: _Given) -> list[Kinked]:
    """Where a norm is 0, or a standard deviation that of a constant."""
    node, attributes = given.node, given.node.attributes
    x, close = given.flat(0)
    element = _reduced(np.shape(given.operands[0]), attributes["axis"])
    if attributes.get("ord") == 1:
        return [_absolute_values(given, x, close, element)]
    count = element.shape[1] - attributes.get("correction", element.shape[1] - 1)  # 1 for a norm
    centred = x[element] - (np.mean(x[element], axis=1, keepdims=True) if node.op == "std" else 0.0)
    length = np.sqrt(np.sum(centred**2, axis=1) / count)
    rounding = CLOSE * given.roundoff * np.abs(x)
    tolerance = np.sqrt(np.sum(close[element] ** 2 + rounding[element] ** 2, axis=1) / count)
    near = length <= tolerance
    exact = length <= tolerance * given.narrowing
    unit, member = np.nonzero(np.broadcast_to(near[:, None], element.shape))
    place, n = (unit, member), len(unit)
    start = centred[place] / np.where(length > 0, length, 1.0)[unit] / count
    radius = np.full(n, count**-0.5)
    where = "of a constant" if node.op == "std" else "at 0"
    zeros = np.zeros(n, int)
    return [Kinked(node, "ball", unit, zeros, element[place], -radius, radius, start, exact[unit], where)]


def _absolute_values(given: _Given, x: Array, close: Array, element: Array) -> Kinked:
    """The units of a 1-norm with an element at 0; its others keep the slope that they have."""
    near = np.asarray(np.abs(x[element]) <= close[element])
    exact = np.asarray(np.abs(x[element]) <= close[element] * given.narrowing)
    unit, member = np.nonzero(np.broadcast_to(near.any(axis=1, keepdims=True), near.shape))
    place, zeros = (unit, member), np.zeros(len(unit), int)
    start = np.sign(x[element[place]])
    low, high = (np.where(near[place], end, start) for end in (-1.0, 1.0))
    known = np.asarray(exact.any(axis=1))[unit]
    return Kinked(given.node, "bend", unit, zeros, element[place], low, high, start, known, "at 0")


_FINDERS: dict[str, Callable[[_Given], list[Kinked]]] = {"bend": _bends, "tie": _ties, "ball": _balls}
