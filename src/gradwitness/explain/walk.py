"""The pass itself: what the interpreter sees at every node and along every edge, put on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.explain.derivative import dense, jacobians, local_derivatives
from gradwitness.graph import LEAF, LITERAL, OUTPUT, Graph, Node
from gradwitness.ops.vocabulary import find_op
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["SMALL", "Edge", "Term", "Visit", "walk"]

Index = tuple[int, ...]

SMALL = 8  # elements up to which a person would write every number down
INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "matmul": "@"}


@dataclass(frozen=True)
class Term:
    """One product of the chain rule between single numbers: dL/d result[at] times d result[at] / d operand[to]."""

    to: Index
    at: Index
    cotangent: float
    local: float

    @property
    def product(self) -> float:
        return self.cotangent * self.local


@dataclass(frozen=True, eq=False)
class Edge:
    """What comes back along one use of the value `source` by the op `target`, as its operand `operand`.

    cotangent: what arrived at the op's result; None for an op with several results. local: the derivative of the
    result by the operand, element by element, for an elementwise op (in the result's shape) and for a scalar result
    (in the operand's); None for others. terms: every product that is not zero, if both ends have at most SMALL
    elements. sent: the cotangent that goes on to `source`.
    """

    source: str
    target: str
    op: str
    operand: str
    cotangent: Array | None
    local: Array | None
    terms: tuple[Term, ...]
    sent: Array


@dataclass(frozen=True, eq=False)
class Visit:
    """One node as the pass meets it.

    role: "parameter" (differentiated), "data", "op", or "result" (one of several of an op). value: None for an op
    with several results. place: where a loss that was given as a graph calls it.
    cotangent: dL/d value, the sum of what the edges in `received` sent; None where none flows.
    """

    name: str
    op: str
    role: str
    formula: str
    inputs: tuple[str, ...]
    value: Array | None
    cotangent: Array | None
    received: tuple[Edge, ...]
    place: str = ""


def walk(interpreter: Interpreter, problem: Problem) -> tuple[tuple[Visit, ...], tuple[Edge, ...]]:
    """Every node in the order of the forward pass, and every edge in the order of the backward pass."""
    graph = problem.graph
    recorder = _Recorder(graph, problem)
    tape = interpreter.forward(graph, problem.leaves, on_value=recorder.on_value)
    gradients = interpreter.backward(tape, problem.differentiated, on_cotangent=recorder.on_cotangent)
    nodes = [n for n in graph.nodes if n.op != LITERAL]
    return tuple(recorder.visit(node, gradients) for node in nodes), tuple(recorder.edges)


class _Recorder:
    """The interpreter's hooks: they note what passes by, and change nothing."""

    def __init__(self, graph: Graph, problem: Problem) -> None:
        self.wrt, self.is_graph = problem.differentiated, isinstance(problem.loss, Graph)
        self.active = graph.active(self.wrt)
        self.names = _names(graph)
        self.leaves = {**graph.constants, **problem.leaves}
        self.values: dict[int, Any] = {}
        self.cotangents: dict[int, Any] = {}
        self.edges: list[Edge] = []

    def on_value(self, node: Node, step: Any) -> Any:
        self.values[node.id] = step.output
        return step.output

    def on_cotangent(self, node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        self.cotangents[node.id] = cotangent
        several = isinstance(node.spec, tuple)
        locals_ = [None] * len(sent) if several else local_derivatives(node, step)
        matrices = [None] * len(sent) if several or node.spec.size > SMALL else jacobians(step)
        arrived = None if several else np.asarray(cotangent)
        declared = find_op(node.op)
        for position, (source, part) in enumerate(zip(node.inputs, sent, strict=True)):
            if source is not None and source.id in self.active:
                edge = Edge(
                    self.names[source.id],
                    self.names[node.id],
                    node.op,
                    declared.name_of_operand(position),
                    arrived,
                    locals_[position],
                    _terms(arrived, matrices[position]),
                    dense(part),
                )
                self.edges.append(edge)
        return sent

    def visit(self, node: Node, gradients: dict[str, Array]) -> Visit:
        name = self.names[node.id]
        return Visit(
            name,
            node.op,
            self._role(node),
            self._formula(node),
            tuple(self.names[i.id] for i in node.inputs if i is not None and i.op != LITERAL),
            self._value(node),
            gradients.get(name) if node.op == LEAF else self._cotangent(node),
            tuple(edge for edge in self.edges if edge.source == name),
            node.line.brief if self.is_graph and node.is_op and node.line is not None else "",
        )

    def _role(self, node: Node) -> str:
        if node.op == LEAF:
            return "parameter" if node.attributes["path"] in self.wrt else "data"
        return "result" if node.op == OUTPUT else "op"

    def _value(self, node: Node) -> Array | None:
        if node.op == LEAF:
            return self.leaves[node.attributes["path"]]
        if node.op == OUTPUT:
            return np.asarray(self.values[_source(node).id][node.attributes["position"]])
        return None if isinstance(node.spec, tuple) else np.asarray(self.values[node.id])

    def _cotangent(self, node: Node) -> Array | None:
        if node.op == OUTPUT:
            parts = self.cotangents.get(_source(node).id)
            found = None if parts is None else parts[node.attributes["position"]]
        else:
            found = None if isinstance(node.spec, tuple) else self.cotangents.get(node.id)
        return None if found is None else np.asarray(found)

    def _formula(self, node: Node) -> str:
        if not node.is_op:
            return ""
        arguments = [self._argument(i) for i in node.inputs]
        if node.op in INFIX:
            return f" {INFIX[node.op]} ".join(arguments)
        while arguments[-1] == "None":
            arguments.pop()
        arguments += [f"{key}={value!r}" for key, value in node.attributes.items()]
        return f"{node.op}({', '.join(arguments)})"

    def _argument(self, node: Node | None) -> str:
        if node is None:
            return "None"
        return repr(node.attributes["value"]) if node.op == LITERAL else self.names[node.id]


def _terms(cotangent: Array | None, jacobian: Array | None) -> tuple[Term, ...]:
    """The products that are not zero, in the order of the operand's elements."""
    if cotangent is None or jacobian is None:
        return ()
    shape = jacobian.shape[cotangent.ndim :]
    if np.prod(shape) > SMALL:
        return ()
    pairs = ((to, at) for to in np.ndindex(shape) for at in np.ndindex(cotangent.shape))
    return tuple(
        Term(to, at, float(cotangent[at]), float(jacobian[at + to])) for to, at in pairs if jacobian[at + to] != 0
    )


def _names(graph: Graph) -> dict[int, str]:
    """A leaf is called by its path, an op by its own name, and by a number as well if there are several."""
    counts = Counter(n.op for n in graph.nodes if n.is_op)
    seen: Counter[str] = Counter()
    names: dict[int, str] = {}
    for node in graph.nodes:
        if node.op == LEAF:
            names[node.id] = node.attributes["path"]
        elif node.op == OUTPUT:
            names[node.id] = f"{names[_source(node).id]}[{node.attributes['position']}]"
        elif node.is_op:
            seen[node.op] += 1
            plain = counts[node.op] == 1 and node.op not in graph.leaves
            names[node.id] = node.op if plain else f"{node.op}#{seen[node.op]}"
    return names


def _source(node: Node) -> Node:
    (source,) = node.inputs
    assert source is not None
    return source
