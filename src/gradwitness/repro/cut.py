"""Smaller graphs of a traced loss: those that end sooner, and those that begin later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import Array, round_to
from gradwitness.graph import LEAF, LITERAL, OUTPUT, Graph, Node, Tracer, spec_of
from gradwitness.ops.value import Value
from gradwitness.problem import Problem
from gradwitness.repro.fault import Fault, located

__all__ = ["Smaller", "as_graph", "ending_sooner", "replayed", "starting_later"]

Leaves = Mapping[str, Array]
Smaller = Callable[[], Fault]  # makes one, or raises where it cannot be


def as_graph(fault: Fault) -> Fault:
    """The same fault, its loss a graph of the candidate's own: what it reads, by path, and nothing else."""
    graph = fault.problem.graph
    known = {**fault.problem.leaves, **graph.constants}
    return _with(fault, graph, {path: known[path] for path in {fault.path: None, **graph.leaves}})


def ending_sooner(fault: Fault) -> Iterator[Smaller]:
    """The graph cut at one of its values, the first ones first: the loss is that value, if it is one number, or its
    sum, or one with random weights, as the elements of a softmax have a sum that stands still."""
    graph = _graph(fault)
    moving = graph.descendants((fault.path,))
    for node in graph.nodes[:-1]:
        if node.id not in moving or node.op in (LEAF, LITERAL) or not _is_one_array(node):
            continue
        if node.spec.size == 1:
            yield partial(_ended, fault, node, lambda value: value)
            continue
        if _is_sum_of(graph.output, node):
            return  # all that is left: a value and its sum
        weights = round_to(np.random.default_rng(0).standard_normal(node.spec.shape), fault.dtype)
        yield partial(_ended, fault, node, lambda value: value.sum())
        if not _is_sum_of(graph.output.inputs[0], node, "multiply"):
            yield partial(_weighted, fault, node, weights)


def _ended(fault: Fault, node: Node, finish: Callable[[Value], Value]) -> Fault:
    return _with(fault, *replayed(_graph(fault), fault.problem.leaves, end=node, finish=finish))


def _weighted(fault: Fault, node: Node, weights: Array) -> Fault:
    path = _unused("weights", fault.problem.leaves)
    leaves = {**fault.problem.leaves, path: weights}

    def finish(value: Value) -> Value:
        assert isinstance(value.builder, Tracer)
        return (value * value.builder.leaf(path, spec_of(weights))).sum()

    return _with(fault, *replayed(_graph(fault), leaves, end=node, finish=finish))


def starting_later(fault: Fault) -> Iterator[Smaller]:
    """The graph with one of its values given, as it is at the point, the last ones first. If the leaf of the fault no
    longer leads to the loss, that value takes its place."""
    graph, leaves = _graph(fault), fault.problem.leaves
    values = registry.interpreter().forward(graph, leaves).values
    for node in reversed(graph.nodes[:-1]):
        if node.op in (LEAF, LITERAL) or not _is_one_array(node):
            continue
        value = np.asarray(values[node.id])
        yield partial(_given, fault, node, value)
        if value.dtype.kind == "f":  # another point may be smooth where this one is at a kink
            yield partial(_given, fault, node, np.random.default_rng(0).standard_normal(value.shape))


def _given(fault: Fault, node: Node, value: Array) -> Fault:
    """Raises GradwitnessError where nothing is left to differentiate by, or nothing is wrong with it."""
    path = _unused(node.op if node.op != OUTPUT else "part", fault.problem.leaves)
    value = round_to(value, fault.dtype) if value.dtype.kind == "f" else value
    shorter, needed = replayed(_graph(fault), fault.problem.leaves, given={node.id: (path, value)})
    if fault.path in shorter.leaves:
        return _with(fault, shorter, needed)
    return located(_with(replace(fault, path=path), shorter, needed))


def replayed(
    graph: Graph,
    leaves: Leaves,
    *,
    end: Node | None = None,
    finish: Callable[[Value], Value] = lambda value: value,
    given: Mapping[int, tuple[str, Array]] | None = None,
) -> tuple[Graph, dict[str, Array]]:
    """The graph again, on leaves of these shapes, and the leaves that it reads: up to `end`, with `finish` after it,
    and with leaves, (path, value) by id, instead of some nodes.

    Raises TraceError where an op refuses the shapes.
    """
    given = given or {}
    known = {**leaves, **dict(given.values())}
    tracer, values = Tracer(expand=(), taken=known), dict[int, Any]()
    for node in graph.nodes:
        if node.id in given:
            path, value = given[node.id]
            values[node.id] = tracer.leaf(path, spec_of(value))
        elif node.op == LEAF:
            values[node.id] = tracer.leaf(node.attributes["path"], spec_of(leaves[node.attributes["path"]]))
        elif node.op == LITERAL:
            values[node.id] = node.attributes["value"]
        elif node.op == OUTPUT:
            (source,) = node.inputs
            assert source is not None
            values[node.id] = values[source.id][node.attributes["position"]]
        else:
            operands = [None if i is None else values[i.id] for i in node.inputs]
            tracer.line, tracer.narrow = node.line, node.narrow
            values[node.id] = tracer.apply(node.op, operands, node.attributes)
        if node is end:
            break
    made = tracer.graph(finish(values[(end or graph.output).id]), {})
    known |= made.constants
    return Graph(made.nodes), {path: known[path] for path in made.leaves}


def _with(fault: Fault, graph: Graph, leaves: Leaves) -> Fault:
    params = {fault.path: leaves[fault.path]} if fault.path in leaves else {}
    batch = {path: leaf for path, leaf in leaves.items() if path != fault.path}
    problem = Problem(fault.problem.name, None, params, batch)
    return replace(fault, problem=problem, candidate=replace(fault.candidate, loss=graph))


def _graph(fault: Fault) -> Graph:
    assert isinstance(fault.candidate.loss, Graph)
    return fault.candidate.loss


def _is_one_array(node: Node) -> bool:
    return not isinstance(node.spec, tuple)


def _is_sum_of(output: Node | None, node: Node, op: str = "sum") -> bool:
    return output is not None and output.op == op and output.inputs[0] is node


def _unused(name: str, taken: Leaves) -> str:
    numbers = (f"{name}_{n}" for n in range(2, len(taken) + 3))
    return next(path for path in (name, *numbers) if path not in taken)
