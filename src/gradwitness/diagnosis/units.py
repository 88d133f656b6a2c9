"""What single units and numbers of a forward pass show: units that are off for the whole batch, units far out on a
flat side, arguments of exp and log that a dtype cannot hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.diagnosis.stages import is_relu, layers_at
from gradwitness.dtypes import Array
from gradwitness.graph import Node
from gradwitness.problem import Problem

__all__ = ["FAR", "Numbers", "Observed", "Units", "observed"]

FAR: Mapping[str, float] = {"sigmoid": 4.0, "tanh": 2.0}  # |z| from which the slope is below 7% of its largest
PICKING = ("index", "take", "reshape", "transpose", "add")
INSIDE = ("lstm_cell", "gru_cell")  # fused ops with activations inside


@dataclass
class Units:
    """Those of one layer's activation, over all of its uses. alive: by unit, whether it is not 0 for some example."""

    layer: str
    op: str
    alive: Array | None = None
    far: int = 0
    values: int = 0

    def add(self, z: Array, given: Array) -> None:
        """One use of it, by what goes in and what comes out."""
        z, given = np.asarray(z), np.asarray(given)
        if self.op in FAR:
            self.far += int(np.sum(np.abs(z) > FAR[self.op]))
        else:
            alive = _by_unit(given != 0)
            same = self.alive is not None and self.alive.shape == alive.shape
            self.alive = alive | self.alive if same else alive
        self.values += z.size

    @property
    def dead(self) -> int:
        return 0 if self.alive is None else int(np.sum(~self.alive))

    @property
    def count(self) -> int:
        return 0 if self.alive is None else self.alive.size


@dataclass(frozen=True)
class Numbers:
    """The operand of an exp or log. after_softmax: whether it is the result of a softmax."""

    layer: str
    op: str
    place: str
    least: float
    most: float
    after_softmax: bool = False


@dataclass(frozen=True)
class Observed:
    """What a forward pass shows of single units and numbers."""

    units: Sequence[Units]
    numbers: Sequence[Numbers]


def observed(problem: Problem) -> Observed:
    """At the problem's point, in float64. Activations inside of recurrent cells are among them."""
    graph = problem.graph.expanded(INSIDE)
    seen = _Seen(layers_at(graph, problem.differentiated))
    registry.interpreter().forward(graph, {**problem.leaves, **graph.constants}, on_value=seen.on_value)
    return Observed(list(seen.units.values()), seen.numbers)


@dataclass
class _Seen:
    """The hook of one pass. layers: to which each node belongs, by its id."""

    layers: Mapping[int, str]
    units: dict[tuple[str, str], Units] = field(default_factory=dict)
    numbers: list[Numbers] = field(default_factory=list)

    def on_value(self, node: Node, step: Any) -> Any:
        layer, op = self.layers.get(node.id, ""), "relu" if is_relu(node) else node.op
        if op == "relu" or op in FAR:
            self.units.setdefault((layer, op), Units(layer, op)).add(step.operands[0], step.output)
        elif op in ("exp", "log") and np.size(step.operands[0]):
            x, place = np.asarray(step.operands[0]), "" if node.line is None else node.line.brief
            after_softmax = _comes_from(node, "softmax")
            self.numbers.append(Numbers(layer, op, place, float(x.min()), float(x.max()), after_softmax))
        return step.output


def _comes_from(node: Node, op: str) -> bool:
    """Whether its operand is what an op gave: all of it or some, with a small number added to it, perhaps."""
    source = node.inputs[0]
    while source is not None and source.op in PICKING:
        source = source.inputs[0]
    return source is not None and source.op == op


def _by_unit(active: Array) -> Array:
    """Whether each unit, a feature or a channel, is active anywhere: channels are second or last, whichever has more
    that are not."""
    axes = {active.ndim - 1, min(1, active.ndim - 1)}
    found = [np.atleast_1d(np.any(active, axis=tuple(i for i in range(active.ndim) if i != axis))) for axis in axes]
    return max(found, key=lambda alive: float(np.mean(~alive)))
