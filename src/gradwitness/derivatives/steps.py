"""The loss after steps along directions: its gradient by the sizes of the steps, at 0, is the jvp."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gradwitness.graph import Graph, Node, Tracer, direction, step
from gradwitness.ops.value import FLOAT, Spec, Value

__all__ = ["stepped"]


def stepped(graph: Graph, wrt: Collection[str], count: int) -> Graph:
    """The loss at leaves `wrt`, each moved along `count` directions.

    It reads two leaves more for each path: `direction(path)`, of shape (count, *shape), and `step(path)`, of shape
    (count,). The derivative by an element of the step is that of the loss along one direction of this leaf alone.
    """
    builder = Tracer(expand=(), taken=graph.leaves)

    def read(node: Node) -> Value:
        path = node.attributes["path"]
        value = builder.leaf(path, node.spec)
        if path not in wrt:
            return value
        along = builder.leaf(direction(path), Spec((count, *node.spec.shape)))
        sizes = builder.leaf(step(path), Spec((count,), FLOAT))
        moved: Value = value + (along * sizes.reshape((count, *(1 for _ in node.spec.shape)))).sum(axis=0)
        return moved

    output = graph.replay(builder, leaf=read)
    return replace(builder.graph(output, {**graph.constants}), remarks=graph.remarks)
