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

from gradwitness.evidence.kinks import members
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op

__all__ = ["held_branches"]

Array = np.ndarray[Any, Any]


def held_branches(graph: Graph, steps: Callable[[Node], Any]) -> Callable[[Node, Any], Any] | None:
    """A hook for `Interpreter.forward`, `on_value`; None for a graph that has no branches.

    steps: the step of each op at the point.
    """
    rules = {node.id: rule for node in graph.nodes if node.is_op and (rule := _rule(node)) is not None}
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


def _rule(node: Node) -> Callable[[Node, Any], Callable[[Any], Any]] | None:
    kink = find_op(node.op).kink
    if getattr(node.spec, "kind", "float") != "float":
        return _decided
    if kink is None:
        return None
    return {"bend": _bend, "tie": _tie}.get(kink.kind)


def _decided(node: Node, here: Any) -> Callable[[Any], Any]:
    return lambda step: here.output


def _bend(node: Node, here: Any) -> Callable[[Any], Any]:
    kink = find_op(node.op).kink
    assert kink is not None
    points = np.sort([bend.at for bend in kink.bends(node.attributes)])
    x = np.asarray(here.operands[0], np.float64)
    side, slope = np.searchsorted(points, x), None

    def on(step: Any) -> Any:
        nonlocal slope
        crossed = np.searchsorted(points, step.operands[0]) != side
        if not np.any(crossed):
            return step.output
        if slope is None:
            slope = here.pull(np.ones(np.shape(here.output)))[0]
        return np.where(crossed, here.output + slope * (step.operands[0] - x), step.output)

    return on


def _tie(node: Node, here: Any) -> Callable[[Any], Any]:
    operand, element = members(node)
    shape = np.shape(here.output)
    values = _picked(here, operand, element, shape)
    values = np.where(element < 0, -np.inf, -values if node.op.startswith("min") else values)  # < 0: padding
    rows, winner = np.arange(len(values)), np.argmax(values, axis=1)
    which, where = operand[rows, winner], element[rows, winner]
    return lambda step: _picked(step, which, where, shape).reshape(shape)


def _picked(step: Any, operand: Array, element: Array, shape: tuple[int, ...]) -> Array:
    """These elements of these operands, which broadcast to `shape` where there are several."""
    found = np.empty(element.shape)
    for number, given in enumerate(step.operands):
        x = np.asarray(given) if len(step.operands) == 1 else np.broadcast_to(given, shape)
        here = operand == number
        found[here] = x.reshape(-1)[element[here]]
    return found
