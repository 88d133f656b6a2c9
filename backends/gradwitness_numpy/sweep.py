"""The forward pass of a graph and the reverse sweep over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.graph import LEAF, LITERAL, OUTPUT, Graph, Node
from gradwitness_numpy.balls import UndecidedError
from gradwitness_numpy.rule import Array, Rule, Slab, Step

__all__ = ["OnCotangent", "OnSum", "OnValue", "Tape", "backward", "forward"]

OnValue = Callable[[Node, Step], Any]
OnCotangent = Callable[[Node, Step, Any, Sequence[Any]], Sequence[Any]]
OnSum = Callable[[Node, Any, Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class Tape:
    """What a forward leaves behind: every node's value, and every op's step, by node id."""

    graph: Graph
    values: dict[int, Any]
    steps: dict[int, Step]

    @property
    def loss(self) -> Any:
        return self.values[self.graph.output.id]


def forward(
    graph: Graph,
    rules: Mapping[str, Rule],
    leaves: Mapping[str, Array],
    *,
    on_value: OnValue | None = None,
    reuse: Tape | None = None,
    changed: Sequence[str] = (),
    number: Callable[[Any], Any] = lambda literal: literal,
) -> Tape:
    """Every node's value at `leaves`. `on_value(node, step)` may replace an op's result before it is used.

    number: makes a literal a number of the kind that the leaves hold. With `reuse`, only what
    depends on the `changed` leaves is computed again.
    """
    values = {} if reuse is None else dict(reuse.values)
    steps = {} if reuse is None else dict(reuse.steps)
    stale = None if reuse is None else graph.descendants(tuple(changed))
    for node in graph.nodes:
        if stale is not None and node.id not in stale:
            continue
        if node.op == LEAF:
            values[node.id] = leaves[node.attributes["path"]]
        elif node.op == LITERAL:
            values[node.id] = number(node.attributes["value"])
        elif node.op == OUTPUT:
            (source,) = node.inputs
            assert source is not None
            values[node.id] = values[source.id][node.attributes["position"]]
        else:
            operands = [None if i is None else values[i.id] for i in node.inputs]
            rule = rules[node.op]
            try:
                output, saved = rule.run(operands, node.attributes)
            except UndecidedError as error:
                raise _at(node, error) from None
            step = steps[node.id] = Step(rule, operands, node.attributes, output, saved, ())
            if on_value is not None:
                step.output = on_value(node, step)
            values[node.id] = step.output
    return Tape(graph, values, steps)


def _at(node: Node, error: UndecidedError) -> UndecidedError:
    """The same with the op, and where the loss calls it."""
    place = "" if node.line is None else f" at {node.line.brief}"
    return UndecidedError(f"{error}, in {node.op}{place}")


def backward(
    tape: Tape,
    wrt: Sequence[str],
    cotangent: Array,
    *,
    on_cotangent: OnCotangent | None = None,
    on_sum: OnSum | None = None,
) -> dict[str, Array]:
    """The gradients by the leaves `wrt` that reach the loss: one visit per edge, in reverse order.

    A value with several consumers gets the sum of the cotangents that they send, which `on_sum(node, sum, parts)` may
    replace; `on_cotangent(node, step, cotangent, sent)` may replace what an op sends to its operands.
    """
    active = tape.graph.active(tuple(wrt))
    pending = _Pending(keep=on_sum is not None)
    pending.send(tape.graph.output, cotangent)
    gradients: dict[str, Array] = {}
    for node in reversed(tape.graph.nodes):
        if node.id not in active or node.id not in pending:
            continue
        g = pending.take(node)
        parts = pending.parts.pop(node.id, ())
        if on_sum is not None and len(parts) > 1:
            g = on_sum(node, g, parts)
        if node.op == LEAF:
            gradients[node.attributes["path"]] = g
        elif node.op == OUTPUT:
            pending.send_part(node, g)
        else:
            step = tape.steps[node.id]
            step.needs = [i is not None and i.id in active for i in node.inputs]
            try:
                sent = step.pull(_complete(g, step))
            except UndecidedError as error:
                raise _at(node, error) from None
            if on_cotangent is not None:
                sent = on_cotangent(node, step, g, sent)
            for source, part in zip(node.inputs, sent, strict=True):
                if source is not None and source.id in active:
                    pending.send(source, part)
    return gradients


class _Pending:
    """Cotangents on their way, summed per node; `keep`: and each of them. A sum made here is owned, so later ones go
    in place."""

    def __init__(self, *, keep: bool) -> None:
        self.sums: dict[int, Any] = {}
        self.owned: set[int] = set()
        self.keep, self.parts = keep, dict[int, list[Any]]()

    def __contains__(self, node_id: int) -> bool:
        return node_id in self.sums

    def take(self, node: Node) -> Any:
        return self.sums.pop(node.id)

    def send(self, node: Node, cotangent: Any) -> None:
        if self.keep:
            self.parts.setdefault(node.id, []).append(cotangent)
        if node.id not in self.sums:
            self.sums[node.id] = cotangent.dense() if isinstance(cotangent, Slab) else cotangent
            if isinstance(cotangent, Slab):
                self.owned.add(node.id)
        elif node.id in self.owned:
            if isinstance(cotangent, Slab):
                self.sums[node.id][cotangent.key] += cotangent.values
            else:
                self.sums[node.id] += cotangent
        else:
            dense = cotangent.dense() if isinstance(cotangent, Slab) else cotangent
            self.sums[node.id] = np.asanyarray(self.sums[node.id] + dense)  # a 0-d sum is a scalar otherwise
            self.owned.add(node.id)

    def send_part(self, part: Node, cotangent: Any) -> None:
        """One result's cotangent, to the op that has several results."""
        (source,) = part.inputs
        assert source is not None
        parts = self.sums.setdefault(source.id, [None] * len(source.spec))
        parts[part.attributes["position"]] = cotangent


def _complete(g: Any, step: Step) -> Any:
    """For an op with several results: zeros for those that nothing used."""
    if not isinstance(g, list):
        return g
    return [np.zeros_like(y) if part is None else part for part, y in zip(g, step.output, strict=True)]
