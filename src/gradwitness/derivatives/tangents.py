"""The derivative of a loss along a direction, as a graph over the vocabulary: forward mode, op by op.

Its value is the product of the gradient with the direction (jvp), and its gradient is that of the Hessian with the
direction (hvp; Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994)). As it is a graph
like any other, every backend runs it, 256 bits say the truth of it, and it is judged as every loss is.

Fused ops are taken apart first, so that only elementary ones need a rule. Where the loss stops a gradient, nothing
moves. Where a definition does, the value moves all the same: such gradients cancel, as that of a mean inside a
variance, and their own derivatives do not. But a largest element stands still, as a softmax does not depend on what is
subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.errors import UnsupportedError
from gradwitness.graph import LEAF, LITERAL, OUTPUT, Graph, Node, Tracer, direction
from gradwitness.ops.value import FLOAT, Value

__all__ = ["RULES", "tangent"]


def tangent(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The derivative of a loss by the leaves `wrt` along leaves `direction(path)` of their shapes.

    Raises UnsupportedError for an op without a rule.
    """
    plain = _with_stops_doubled(graph).decomposed()
    builder = Tracer(expand=(), taken=plain.leaves)
    return _Forward(builder, frozenset(wrt)).run(plain)


def _with_stops_doubled(graph: Graph) -> Graph:
    """The same loss, each stop_gradient of its own twice, by which it is told from those of definitions."""
    if "stop_gradient" not in graph.op_names:
        return graph
    builder = Tracer(expand=(), taken=graph.leaves)

    def each(node: Node, value: Value) -> Value:
        return ops.stop_gradient(value) if node.op == "stop_gradient" else value

    output = graph.replay(builder, each=each)
    return replace(builder.graph(output, {**graph.constants}), remarks=graph.remarks)


@dataclass(frozen=True)
class Applied:
    """One op: its operands, its result, and its attributes."""

    operands: Sequence[Any]
    result: Value
    attributes: Mapping[str, Any]

    @property
    def x(self) -> Any:
        """The first operand."""
        return self.operands[0]


class _Forward:
    """A replay of a graph, with the tangent of each value that moves beside it."""

    def __init__(self, builder: Tracer, wrt: frozenset[str]) -> None:
        self.builder, self.wrt = builder, wrt
        self.values: dict[int, Any] = {}
        self.tangents: dict[int, Value] = {}

    def run(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            self._visit(node)
        found = self.tangents.get(graph.output.id)
        if found is None:
            found = 0.0 * self.values[graph.output.id]
        return self.builder.graph(found, {**graph.constants})

    def _visit(self, node: Node) -> None:
        if node.op == LITERAL:
            self.values[node.id] = node.attributes["value"]
        elif node.op == LEAF:
            path = node.attributes["path"]
            self.values[node.id] = self.builder.leaf(path, node.spec)
            if path in self.wrt:
                self.tangents[node.id] = self.builder.leaf(direction(path), node.spec)
        elif node.op == OUTPUT:
            raise UnsupportedError("an op with several results has no derivative along a direction yet")
        else:
            self._apply(node)

    def _apply(self, node: Node) -> None:
        operands = [None if i is None else self.values[i.id] for i in node.inputs]
        moving = [None if i is None else self.tangents.get(i.id) for i in node.inputs]
        self.builder.line, self.builder.narrow = node.line, node.narrow
        result = self.values[node.id] = self.builder.apply(node.op, operands, node.attributes)
        if node.spec.dtype == FLOAT and any(t is not None for t in moving):
            if node.op not in RULES:
                raise UnsupportedError(f"{node.op} has no rule for derivatives along a direction")
            found = RULES[node.op](Applied(operands, result, node.attributes), moving)
            if found is not None:
                self.tangents[node.id] = found


# Rules: of an op as it was applied and the tangents of its operands, None for those that do not move

Tangents = Sequence[Any]
Rule = Callable[[Applied, Tangents], Any]


def _stopped(a: Applied, t: Tangents) -> Any:
    source = a.x.node
    while source.op in ("reshape", "broadcast_to"):
        (source,) = source.inputs
    return None if source.op in ("max", "stop_gradient") else t[0]


def _linear(op: Callable[..., Value]) -> Rule:
    """An op that is linear in its only operand that moves, which is the first."""
    return lambda a, t: op(t[0], *a.operands[1:], **a.attributes)


def _times(slope: Callable[[Applied], Any]) -> Rule:
    """An elementwise op of one operand, by its slope."""
    return lambda a, t: t[0] * slope(a)


def _add(*parts: Any) -> Any:
    there = [part for part in parts if part is not None]
    return None if not there else there[0] if len(there) == 1 else there[0] + there[1]


def _scaled(t: Any, by: Any) -> Any:
    return None if t is None else t * by


def _subtract(a: Applied, t: Tangents) -> Any:
    return _add(t[0], None if t[1] is None else -t[1])


def _multiply(a: Applied, t: Tangents) -> Any:
    x, y = a.operands
    return _add(_scaled(t[0], y), _scaled(t[1], x))


def _divide(a: Applied, t: Tangents) -> Any:
    _, y = a.operands
    return _add(None if t[0] is None else t[0] / y, None if t[1] is None else -(t[1] * a.result / y))


def _power(a: Applied, t: Tangents) -> Any:
    x, y = a.operands
    by_base = None if t[0] is None else t[0] * (y * x ** (y - 1.0))
    return _add(by_base, None if t[1] is None else t[1] * (a.result * ops.log(x)))


def _larger(sign: float) -> Rule:
    """maximum (sign 1) and minimum (-1): of operands that tie, each moves the result by half."""

    def rule(a: Applied, t: Tangents) -> Any:
        x, y = a.operands
        first, second = _both(t)
        wins, loses = (x > y, x < y) if sign > 0 else (x < y, x > y)
        return _broadcast(ops.where(wins, first, ops.where(loses, second, 0.5 * (first + second))), a)

    return rule


def _both(t: Tangents) -> tuple[Any, Any]:
    """Two tangents, zeros for the one that does not move: made of the other, as a value may be infinite."""
    first, second = t
    return (0.0 * second if first is None else first, 0.0 * first if second is None else second)


def _chosen(a: Applied, t: Tangents) -> Any:
    return _broadcast(ops.where(a.x, *_both(t[1:])), a)


def _joined(op: Callable[..., Value]) -> Rule:
    def rule(a: Applied, t: Tangents) -> Any:
        parts = [0.0 * x if part is None else part for x, part in zip(a.operands, t, strict=True)]
        return op(parts, **a.attributes)

    return rule


def _extreme(a: Applied, t: Tangents) -> Any:
    """max and min over axes: elements that tie share."""
    kept = a.result.reshape(_kept_shape(a.x.shape, a.attributes["axis"]))
    is_it, zero = ops.equal(a.x, ops.broadcast_to(kept, shape=a.x.shape)), 0.0 * t[0]
    return ops.where(is_it, t[0], zero).sum(**a.attributes) / ops.where(is_it, zero + 1.0, zero).sum(**a.attributes)


def _kept_shape(shape: tuple[int, ...], axis: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if place in axis else extent for place, extent in enumerate(shape))


def _matmul(a: Applied, t: Tangents) -> Any:
    x, y = a.operands
    by_x = None if t[0] is None else ops.matmul(t[0], y)
    return _add(by_x, None if t[1] is None else ops.matmul(x, t[1]))


def _conv2d(a: Applied, t: Tangents) -> Any:
    x, weight, _ = a.operands
    by_x = None if t[0] is None else ops.conv2d(t[0], weight, **a.attributes)
    by_weight = None if t[1] is None else ops.conv2d(x, t[1], **a.attributes)
    by_bias = None if t[2] is None else ops.broadcast_to(t[2].reshape(1, -1, 1, 1), shape=a.result.shape)
    return _add(_add(by_x, by_weight), by_bias)


def _max_pool2d(a: Applied, t: Tangents) -> Any:
    """The first element of each window that is its maximum, in row-major order: windows are shifted images, which are
    cut out, so that nothing is rounded in them."""
    free, found = 0.0 * a.result + 1.0, 0.0 * a.result  # free: windows whose maximum has not come yet
    images, moving = _padded(a.x, a, -math.inf), _padded(t[0], a, 0.0)
    for place in np.ndindex(*a.attributes["kernel_size"]):
        is_it = ops.where(ops.equal(_shifted(images, place, a), a.result), free, 0.0 * free)
        found = found + is_it * _shifted(moving, place, a)
        free = free - is_it
    return found


def _padded(x: Any, a: Applied, value: float) -> Any:
    for axis, width in zip((2, 3), a.attributes["padding"], strict=True):
        if width:
            border = np.full((*x.shape[:axis], width, *x.shape[axis + 1 :]), value)
            x = ops.concatenate([border, x, border], axis=axis)
    return x


def _shifted(x: Any, place: tuple[int, ...], a: Applied) -> Any:
    """The element at this place of each window."""
    rows, columns = (
        slice(start, start + stride * (count - 1) + 1, stride)
        for start, stride, count in zip(place, a.attributes["stride"], a.result.shape[2:], strict=True)
    )
    return x[:, :, rows, columns]


def _silu_slope(a: Applied) -> Any:
    s = ops.sigmoid(a.x)
    return s + a.x * s * (1.0 - s)


def _hardtanh(a: Applied, t: Tangents) -> Any:
    """Its operand, strictly between its ends."""
    zero = 0.0 * t[0]
    inside = ops.where(a.x < a.attributes["max_val"], t[0], zero)
    return ops.where(a.x > a.attributes["min_val"], inside, zero)


def _clip(a: Applied, t: Tangents) -> Any:
    """Its operand, between its ends or at one."""
    found, zero = t[0], 0.0 * t[0]
    if a.attributes["min"] is not None:
        found = ops.where(a.x >= a.attributes["min"], found, zero)
    if a.attributes["max"] is not None:
        found = ops.where(a.x <= a.attributes["max"], found, zero)
    return found


RULES: Mapping[str, Rule] = {
    "add": lambda a, t: _broadcast(_add(*t), a),
    "subtract": lambda a, t: _broadcast(_subtract(a, t), a),
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "maximum": _larger(1.0),
    "minimum": _larger(-1.0),
    "where": _chosen,
    "negative": _linear(ops.negative),
    "abs": lambda a, t: ops.where(a.x > 0.0, t[0], ops.where(a.x < 0.0, -t[0], 0.0 * t[0])),
    "exp": _times(lambda a: a.result),
    "log": lambda a, t: t[0] / a.x,
    "log1p": lambda a, t: t[0] / (1.0 + a.x),
    "expm1": _times(lambda a: a.result + 1.0),
    "erf": _times(lambda a: 2.0 / math.sqrt(math.pi) * ops.exp(-(a.x * a.x))),
    "sqrt": lambda a, t: t[0] / (2.0 * a.result),
    "sin": _times(lambda a: ops.cos(a.x)),
    "cos": _times(lambda a: -ops.sin(a.x)),
    "tanh": _times(lambda a: 1.0 - a.result * a.result),
    "sigmoid": _times(lambda a: a.result * (1.0 - a.result)),
    "relu": lambda a, t: ops.where(a.x > 0.0, t[0], 0.0 * t[0]),
    "leaky_relu": lambda a, t: ops.where(a.x > 0.0, t[0], a.attributes["negative_slope"] * t[0]),
    "silu": _times(_silu_slope),
    "hardtanh": _hardtanh,
    "clip": _clip,
    "transpose": _linear(ops.transpose),
    "reshape": _linear(ops.reshape),
    "broadcast_to": _linear(ops.broadcast_to),
    "concatenate": _joined(ops.concatenate),
    "stack": _joined(ops.stack),
    "index": lambda a, t: t[0][a.attributes["key"]],
    "take": _linear(ops.take),
    "stop_gradient": _stopped,
    "sum": _linear(ops.sum),
    "max": _extreme,
    "min": _extreme,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
}


def _broadcast(t: Any, a: Applied) -> Any:
    """In the shape of the result: a literal beside it may have widened nothing, and an operand may be repeated."""
    return t if t is None or t.shape == a.result.shape else ops.broadcast_to(t, shape=a.result.shape)
