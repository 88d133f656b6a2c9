"""A forward pass that takes every branch as it was taken at the point: what differences of a graph are taken of.

Joint directions move thousands of units across a kink, and a difference across a kink is the mean of both sides. On a
graph every branch is known. A unit of a bend that crosses it goes on along the line that it was on; under an extremum
the one that won goes on winning; a comparison stays as it was decided. Where no unit is at its kink the derivative is
that of the loss itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.kinks import members
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.ops.value import FLOAT
from gradwitness.ops.vocabulary import Kink

__all__ = ["has_branches", "held_branches"]


def held_branches(
    graph: Graph, steps: Callable[[Node], Any], *, decisions: bool = True
) -> Callable[[Node, Any], Any] | None:
    """A hook for `Interpreter.forward`, `on_value`; None for a graph that has no branches.

    steps: the step of each op at the point. decisions: whether comparisons are held, beside bends and extrema, which
    are continuous.
    """
    rules = _rules(graph)
    if not decisions:
        rules = {number: rule for number, rule in rules.items() if rule is not _decided}
    if not rules:
        return None
    fixed: dict[int, Any] = {}

    def on_value(node: Node, step: Any) -> Any:
        rule = rules.get(node.id)
        if rule is None:
            return step.output
        if node.id not in fixed:
            fixed[node.id] = rule(node, steps(node))
        return fixed[node.id](step)

    return on_value


def has_branches(graph: Graph) -> bool:
    """Whether there is anything to hold."""
    return bool(_rules(graph))


def _rules(graph: Graph) -> dict[int, Callable[[Node, Any], Callable[[Any], Any]]]:
    return {node.id: rule for node in graph.nodes if node.is_op and (rule := _rule(node)) is not None}


def _rule(node: Node) -> Callable[[Node, Any], Callable[[Any], Any]] | None:
    kink = find_op(node.op).kink
    if getattr(node.spec, "dtype", FLOAT) != FLOAT:
        return _decided
    if kink is None:
        return None
    return {"bend": _bend, "tie": _tie}.get(kink.kind)


def _decided(node: Node, here: Any) -> Callable[[Any], Any]:
    return lambda step: here.output


def _bend(node: Node, here: Any) -> Callable[[Any], Any]:
    """Beyond the bends on either side of where a unit is, along the tangents there, as the vocabulary declares them; of
    a unit at a bend, along the slope that the vocabulary gives it there."""
    bends = sorted(_kink(node).bends(node.attributes), key=lambda bend: bend.at)
    points = np.array([bend.at for bend in bends])
    start = np.asarray(here.operands[0], np.float64)
    side = np.searchsorted(points, start)

    def on(step: Any) -> Any:
        x, y = np.asarray(step.operands[0]), step.output
        for number, bend in enumerate(bends):
            at_bend = float(here.with_operands([np.array(bend.at)]).output)
            beyond = (side == number) & (x > bend.at)
            y = np.where(beyond, at_bend + bend.left * (x - bend.at), y)
            beyond = (side == number + 1) & (x < bend.at)
            y = np.where(beyond, at_bend + bend.right * (x - bend.at), y)
            y = np.where(start == bend.at, at_bend + bend.own * (x - bend.at), y)
        return y

    return on


def _kink(node: Node) -> Kink:
    kink = find_op(node.op).kink
    assert kink is not None
    return kink


def _tie(node: Node, here: Any) -> Callable[[Any], Any]:
    operand, element = members(node)
    shape = np.shape(here.output)
    values = _picked(here, operand, element, shape)
    values = np.where(element < 0, -np.inf, -values if node.op.startswith("min") else values)  # < 0: padding
    row, place = _winners(values, _kink(node).shares)
    which, where, part = operand[row, place], element[row, place], 1 / np.bincount(row)[row]
    return lambda step: np.bincount(row, part * _picked(step, which, where, shape)).reshape(shape)


def _winners(values: Array, shares: bool) -> tuple[Array, Array]:
    """(rows, places in them) of the largest: of those that tie all, where they share, else the first."""
    if shares:
        row, place = np.nonzero(values == np.max(values, axis=1, keepdims=True))
        return row, place
    return np.arange(len(values)), np.argmax(values, axis=1)


def _picked(step: Any, operand: Array, element: Array, shape: tuple[int, ...]) -> Array:
    """These elements of these operands, which broadcast to `shape` where there are several."""
    found = np.empty(element.shape)
    for number, given in enumerate(step.operands):
        x = np.asarray(given) if len(step.operands) == 1 else np.broadcast_to(given, shape)
        here = operand == number
        found[here] = x.reshape(-1)[element[here]]
    return found
