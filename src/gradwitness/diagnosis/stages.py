"""The layers of a network in the order in which values pass through them, read off its graph.

A layer is what parameters of one path make: `layers.3.weight` and `layers.3.bias` are `layers.3`. Each use of it is a
stage, so that a recurrent cell is a stage at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from gradwitness.graph import LEAF, LITERAL, OUTPUT, Graph, Node

__all__ = ["SLOPES", "Stage", "is_relu", "layers_at", "stages_of"]

SLOPES: Mapping[str, float] = {  # the steepest that each activation is anywhere
    "sigmoid": 0.25,
    "tanh": 1.0,
    "relu": 1.0,
    "leaky_relu": 1.0,
    "hardtanh": 1.0,
    "softplus": 1.0,
    "gelu": 1.129,
    "silu": 1.0998,
    "maximum": 1.0,
}
MOVES = ("reshape", "transpose", "broadcast_to")  # elements are where they were, or elsewhere
PRODUCTS = ("linear", "matmul", "conv2d")


@dataclass(frozen=True)
class Stage:
    """One use of a layer.

    layer: its name. use: the how manieth it is, from 1. leaves: the parameters that it uses.
    output: the node of what it gives, behind its activation, if it has one that is known.
    activation: the op of that; "" for none. weight: the only parameter that its input is multiplied by, if it is such a
    layer. after: the number of the stage whose output alone is its input; None for any other. before: the numbers of
    all stages from which its input comes.
    """

    layer: str
    use: int
    leaves: tuple[str, ...]
    output: Node
    activation: str = ""
    weight: str | None = None
    after: int | None = None
    before: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """Its layer, and which use of it, after the first."""
        return self.layer if self.use == 1 else f"{self.layer} (use {self.use})"

    @property
    def slope(self) -> float:
        """The steepest that its activation is."""
        return SLOPES.get(self.activation, 1.0)


def stages_of(graph: Graph, wrt: tuple[str, ...]) -> tuple[Stage, ...]:
    """Each use of a layer that has parameters among the leaves `wrt`, in the order of the forward pass."""
    return tuple(_Reading(graph, frozenset(wrt)).stages())


def layers_at(graph: Graph, wrt: tuple[str, ...]) -> dict[int, str]:
    """The layer to which each value belongs, by the id of its node: the last whose parameters it has passed."""
    reading = _Reading(graph, frozenset(wrt))
    for node in graph.nodes:
        reading.visit(node)
    return {number: reading.opened[stage].layer for number, stage in reading.stage_at.items()}


def is_relu(node: Node) -> bool:
    """Whether it is max(x, 0), as an op or spelled out."""
    zero = any(i is not None and i.op == LITERAL and i.attributes["value"] == 0 for i in node.inputs)
    return node.op == "relu" or (node.op == "maximum" and zero)


@dataclass
class _Open:
    """A stage that is being read. first, last: nodes that take its parameters."""

    layer: str
    leaves: set[str]
    first: Node
    last: Node
    inputs: list[Node]
    product: Node | None = None


@dataclass
class _Reading:
    """A walk through the graph: values made of parameters alone stand for those; every other belongs to a stage."""

    graph: Graph
    wrt: frozenset[str]
    made_of: dict[int, frozenset[str]] = field(default_factory=dict)  # parameters, by the id of what they alone make
    stage_at: dict[int, int] = field(default_factory=dict)
    opened: list[_Open] = field(default_factory=list)

    def stages(self) -> Iterator[Stage]:
        for node in self.graph.nodes:
            self.visit(node)
        uses: dict[str, int] = {}
        found = [self._closed(one) for one in self.opened]
        given = {stage.output.id: number for number, stage in enumerate(found)}
        for stage, one in zip(found, self.opened, strict=True):
            uses[stage.layer] = uses.get(stage.layer, 0) + 1
            after = given.get(self._source(one.inputs[0]).id) if len(one.inputs) == 1 else None
            before = frozenset(self.stage_at[i.id] for i in one.inputs if i.id in self.stage_at)
            yield replace(stage, use=uses[stage.layer], after=after, before=before)

    def visit(self, node: Node) -> None:
        if node.op == LITERAL:
            return
        if node.op == LEAF:
            path = node.attributes["path"]
            if path in self.wrt:
                self.made_of[node.id] = frozenset([path])
            return
        operands = [i for i in node.inputs if i is not None and i.op != LITERAL]
        data = [i for i in operands if i.id not in self.made_of]
        used = frozenset[str]().union(*(self.made_of[i.id] for i in operands if i.id in self.made_of))
        if used and not data:
            self.made_of[node.id] = used
            return
        before = max((self.stage_at[i.id] for i in data if i.id in self.stage_at), default=None)
        if used:
            before = self._used(node, used, data, before)
        if before is not None:
            self.stage_at[node.id] = before

    def _used(self, node: Node, used: frozenset[str], data: list[Node], before: int | None) -> int:
        """The stage of a node that takes parameters: that of its input if it adds to it what has not been used there,
        such as a bias, else a new one."""
        layer = _layer(min(used, key=[*self.graph.leaves].index))
        product = node if node.op in PRODUCTS else None
        if before is not None:
            one = self.opened[before]
            alike = one.layer == layer or (node.op == "add" and "." not in layer + one.layer)
            if alike and not used & one.leaves and (product is None or one.product is None):
                one.leaves |= used
                one.last, one.product = node, one.product or product
                return before
        self.opened.append(_Open(layer, set(used), node, node, data, product))
        return len(self.opened) - 1

    def _closed(self, one: _Open) -> Stage:
        output, activation = self._behind(one.last)
        leaves = tuple(path for path in self.graph.leaves if path in one.leaves)
        matrices = [path for path in leaves if len(self.graph.leaves[path].spec.shape) > 1]
        weight = matrices[0] if one.product is one.first and len(matrices) == 1 else None
        return Stage(one.layer, 1, leaves, output, activation, weight)

    def _behind(self, node: Node) -> tuple[Node, str]:
        """(what a stage gives, its activation), from the last node on that takes parameters."""
        if isinstance(node.spec, tuple):
            results = [n for n in self.graph.nodes if n.op == OUTPUT and n.inputs[0] is node]
            return min(results, key=lambda n: n.attributes["position"]), ""
        there = node
        while (user := self._only_user(there)) is not None:
            if user.op in SLOPES and (user.op != "maximum" or is_relu(user)):
                return user, "relu" if is_relu(user) else user.op
            if user.op not in MOVES:
                break
            there = user
        return node, ""

    def _only_user(self, node: Node) -> Node | None:
        users = self._users.get(node.id, [])
        return users[0] if len(users) == 1 else None

    def _source(self, node: Node) -> Node:
        """What a value is, however its elements are laid out; itself where others use that too."""
        while node.op in MOVES and self._only_user(source := _first(node)) is node:
            node = source
        return node if self._only_user(node) is not None else self.graph.output

    @cached_property
    def _users(self) -> dict[int, list[Node]]:
        found: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            for source in {i.id for i in node.inputs if i is not None}:
                found.setdefault(source, []).append(node)
        return found


def _layer(path: str) -> str:
    """What a parameter belongs to: its path without its own name, if it has a name and not only a number."""
    parent, _, name = path.rpartition(".")
    return parent if parent and not name.isdigit() else path


def _first(node: Node) -> Node:
    source = node.inputs[0]
    assert source is not None
    return source
