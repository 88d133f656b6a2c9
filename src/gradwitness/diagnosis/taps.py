"""Activations and cotangents as gradients, so that every backend gives them, and each is judged as a gradient is.

A value y is replaced by y + z, and the loss by loss + sum(y * w), where the leaves z and w are zeros. That changes
neither, the derivative by z is the cotangent that arrives at y, and the derivative by w is y itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.graph import Graph, Node, Tracer
from gradwitness.ops.value import Value
from gradwitness.problem import Problem

__all__ = ["Tap", "tapped"]


@dataclass(frozen=True)
class Tap:
    """The paths of two leaves: by one the derivative is a node's value, by the other the cotangent that arrives."""

    value: str
    cotangent: str

    @classmethod
    def at(cls, node: Node) -> Tap:
        return cls(f"tap.{node.id}.value", f"tap.{node.id}.cotangent")


def tapped(problem: Problem, nodes: Sequence[Node]) -> Problem:
    """The same problem, whose gradient has what passes by these nodes of its graph too."""
    graph, taps = problem.graph, {node.id: Tap.at(node) for node in nodes}
    leaves: dict[str, Array] = {}
    for node in nodes:
        leaves |= dict.fromkeys((taps[node.id].value, taps[node.id].cotangent), np.zeros(node.spec.shape))
    known = {path: problem.leaves[path] for path in graph.leaves if path in problem.leaves}
    params = {path: x for path, x in known.items() if path in problem.differentiated}
    batch = {path: x for path, x in known.items() if path not in params}
    return Problem(problem.name, _with_taps(graph, taps), params | leaves, batch)


def _with_taps(graph: Graph, taps: Mapping[int, Tap]) -> Graph:
    builder = Tracer(expand=(), taken=graph.leaves)
    looked_at: list[Value] = []

    def each(node: Node, value: Value) -> Value:
        if node.id not in taps:
            return value
        weights, moved = (builder.leaf(path, value.spec) for path in (taps[node.id].value, taps[node.id].cotangent))
        looked_at.append((value * weights).sum())
        return value + moved

    total = graph.replay(builder, each=each)
    for part in looked_at:
        total = total + part
    return replace(builder.graph(total, {**graph.constants}), remarks=graph.remarks)
