"""The interpreter in hundreds of bits: the same rules, on arrays of balls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradwitness.graph import Graph, Node
from gradwitness_numpy.balls import balls, precision
from gradwitness_numpy.rule import Rule, Step
from gradwitness_numpy.rules import RULES, with_rules
from gradwitness_numpy.sweep import Tape, backward, forward

__all__ = ["Extended", "extended"]


def _one_hot(labels: Any, *, num_classes: int) -> Any:
    return balls(RULES["one_hot"].forward(labels, num_classes=num_classes, dtype=np.float64))


def _kept(node: Node, step: Step) -> Any:
    """An op's result as balls, also where its rule filled an array of NumPy's own."""
    return tuple(map(balls, step.output)) if isinstance(step.output, tuple) else balls(step.output)


class Extended:
    """Runs graphs node by node on balls."""

    def __init__(self, own: Mapping[str, Rule]) -> None:
        self.own = own

    def numbers(self, x: Any) -> Any:
        return balls(x)

    def forward(
        self, graph: Graph, leaves: Mapping[str, Any], *, reuse: Tape | None = None, changed: Sequence[str] = ()
    ) -> Tape:
        graph, rules = with_rules(graph, _one_hot, self.own)
        exact = {path: balls(a) for path, a in {**graph.constants, **leaves}.items()}
        return forward(graph, rules, exact, on_value=_kept, reuse=reuse, changed=changed, number=balls)

    def loss(self, tape: Tape) -> Any:
        return np.reshape(tape.loss, ()).item()

    def backward(self, tape: Tape, wrt: Sequence[str]) -> dict[str, Any]:
        found = backward(tape, wrt, balls(np.ones(np.shape(tape.loss))))
        return {path: balls(g) for path, g in found.items()}


@contextmanager
def extended(bits: int, own: Mapping[str, Rule]) -> Iterator[Extended]:
    with precision(bits):
        yield Extended(own)
