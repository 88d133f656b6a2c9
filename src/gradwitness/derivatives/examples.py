"""The loss at a copy of the params for each example: its gradient by a copy is that of the example."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gradwitness.dtypes import Array
from gradwitness.graph import Graph, Node, Tracer
from gradwitness.ops.value import Spec, Value

__all__ = ["by_example", "of_example"]


def of_example(path: str, number: int) -> str:
    """The path of the leaf that holds an example alone, as a batch of one."""
    return f"example.{number}.{path}"


def by_example(graphs: Sequence[Graph], wrt: Collection[str], single: Collection[str]) -> Graph:
    """The sum of the losses of single examples.

    graphs: of each example's loss. wrt: leaves that become a stack, of shape (examples, *shape), of which each graph
    reads its own. single: leaves that hold an example alone; they get the path `of_example`.
    """
    builder = Tracer(expand=(), taken=[path for graph in graphs for path in graph.leaves])
    known: dict[str, Value] = {}
    constants: dict[str, Array] = {}
    losses = []

    def leaf(path: str, spec: Spec) -> Value:
        if path not in known:
            known[path] = builder.leaf(path, spec)
        return known[path]

    for number, graph in enumerate(graphs):

        def read(node: Node, number: int = number, graph: Graph = graph) -> Value:
            path, spec = node.attributes["path"], node.spec
            if path in wrt:
                return leaf(path, Spec((len(graphs), *spec.shape)))[number]
            if path in graph.constants:
                constants[of_example(path, number)] = graph.constants[path]
            return leaf(of_example(path, number) if path in single or path in graph.constants else path, spec)

        losses.append(graph.replay(builder, leaf=read).reshape(()))
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return builder.graph(total, constants)
