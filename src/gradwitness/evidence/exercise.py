"""Which regions of its ops a problem exercises: what agrees elsewhere is untested in the others.

A unit, one element of an op, is in a region if its operands are there; it exercises the region if a cotangent that
is not zero arrives at it, as any slope times zero is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.graph import Node
from gradwitness.ops import find_op
from gradwitness.ops.vocabulary import fused
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Exercise", "exercise"]

LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class Exercise:
    """One call of an op that has several regions: those in which it was exercised, and those in which it was not.

    line: where the loss calls it, as "file.py:12" or "layers.0 (file.py:12)"; "" if that is unknown. lowest,
    highest: of what is divided into regions, over the units that a cotangent reached; None if there are none or the
    regions are no intervals. arrives, passes: whether a cotangent that is not zero comes from the loss, and whether the
    op sends one on.
    """

    op: str
    line: str
    reached: tuple[str, ...]
    missed: tuple[str, ...]
    lowest: float | None
    highest: float | None
    arrives: bool
    passes: bool


def exercise(interpreter: Interpreter, problem: Problem) -> tuple[Exercise, ...]:
    """An Exercise for each call through which a cotangent may flow, in the order of the loss: one pass in float64.

    Raises what the interpreter raises.
    """
    graph = problem.graph.decomposed(keep=fused("regions"))
    found: dict[int, Exercise] = {}

    def look(node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        one = _exercise(node, step.operands, cotangent, sent)
        if one is not None:
            found[node.id] = one
        return sent

    interpreter.backward(interpreter.forward(graph, problem.leaves), problem.differentiated, on_cotangent=look)
    return tuple(found[node.id] for node in graph.nodes if node.id in found)


def _exercise(node: Node, operands: Sequence[Any], cotangent: Any, sent: Sequence[Any]) -> Exercise | None:
    op = find_op(node.op)
    points = op.dividing_points(node.attributes)
    if op.regions is None or not points:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # infinity less infinity is in no region
        quantity = op.regions.of(*operands, **node.attributes)
    if quantity is None:
        return None
    live: Array = np.asarray(cotangent) != 0
    units = _reached_by(live, np.asarray(quantity))
    names = op.regions.names or _intervals(points, op.regions.what)
    bounds = zip(names, pairwise((-np.inf, *points, np.inf)), strict=True)
    finite = np.clip(units, -LARGEST, LARGEST)  # infinity is in an outermost region
    reached = tuple(name for name, (low, high) in bounds if np.any((finite > low) & (finite < high)))
    measured = units.size > 0 and not op.regions.names
    return Exercise(
        node.op,
        "" if node.line is None else node.line.brief,
        reached,
        tuple(name for name in names if name not in reached),
        float(np.min(units)) if measured else None,
        float(np.max(units)) if measured else None,
        bool(np.any(live)),
        any(part is not None and bool(np.any(part)) for part in sent),
    )


def _reached_by(live: Array, quantity: Array) -> Array:
    """The units at which a cotangent arrived; all or none where the result has another shape than what is divided."""
    if live.shape != quantity.shape:
        live = np.broadcast_to(live.any(), quantity.shape)
    units: Array = quantity[live]
    return units


def _intervals(points: Sequence[float], what: str) -> tuple[str, ...]:
    inner = [f"between {low:g} and {high:g}" for low, high in pairwise(points)]
    return tuple(f"{what} {name}".strip() for name in (f"below {points[0]:g}", *inner, f"above {points[-1]:g}"))
