"""The interpreter in hundreds of bits: the same rules, on arrays of balls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradwitness.graph import Graph, Node
from gradwitness_numpy.balls import balls, precision
from gradwitness_numpy.rule import Rule, Step
from gradwitness_numpy.rules import RULES
from gradwitness_numpy.sweep import Tape, backward, forward

__all__ = ["Extended", "extended"]


def _one_hot(labels: Any, *, num_classes: int) -> Any:
    return balls(RULES["one_hot"].forward(labels, num_classes=num_classes, dtype=np.float64))


def _compared(node: Node, step: Step) -> Any:
    """An op's result as balls also where it was filled into a plain array, whose comparisons pass over overlaps."""
    return tuple(map(balls, step.output)) if isinstance(step.output, tuple) else balls(step.output)


def _rules() -> Mapping[str, Rule]:
    return RULES | {"one_hot": replace(RULES["one_hot"], forward=_one_hot)}


@dataclass(frozen=True)
class Extended:
    """Runs graphs node by node on balls. `ties`: where balls overlapped under a maximum or minimum."""

    ties: list[str] = field(default_factory=list)

    def numbers(self, x: Any) -> Any:
        return balls(x)

    def forward(
        self, graph: Graph, leaves: Mapping[str, Any], *, reuse: Tape | None = None, changed: Sequence[str] = ()
    ) -> Tape:
        exact = {path: balls(a) for path, a in {**graph.constants, **leaves}.items()}
        return forward(graph, _rules(), exact, on_value=_compared, reuse=reuse, changed=changed, number=balls)

    def loss(self, tape: Tape) -> Any:
        return np.reshape(tape.loss, ()).item()

    def backward(self, tape: Tape, wrt: Sequence[str]) -> dict[str, Any]:
        found = backward(tape, wrt, balls(np.ones(np.shape(tape.loss))))
        return {path: balls(g) for path, g in found.items()}


@contextmanager
def extended(bits: int) -> Iterator[Extended]:
    with precision(bits) as ties:
        yield Extended(ties)
