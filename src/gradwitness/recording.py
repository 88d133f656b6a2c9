"""A graph recorded while a framework runs a loss on real numbers: what adapters capture with."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.graph import Graph, Node, Place, Remark, Tracer, spec_of
from gradwitness.ops.value import BOOL, FLOAT, INT, Spec, Value

__all__ = ["AT_THE_POINT", "IS_DETACHED", "Recorder", "folders_of"]

AT_THE_POINT = "is decided at the point"
IS_DETACHED = "detached from what it was computed from: no gradient passes"
HELD = {FLOAT: np.float64, INT: np.int64, BOOL: np.bool_}  # by kind, what constants are held as


def folders_of(*modules: ModuleType) -> tuple[str, ...]:
    """How the names of files begin that are no user's: those of these modules' folders, and of the core."""
    files = (__file__, *(module.__file__ or "" for module in modules))
    return tuple(os.path.dirname(file) + os.sep for file in files)


class Recorder(Tracer):
    """A tracer whose caller says at which line of the loss it is.

    leaves: arrays by path that stand for themselves. One of them among the operands is a leaf of the graph; every other
    array is a constant, and the same array is the same constant. wrt: the paths of those that the loss is
    differentiated by.
    """

    def __init__(self, leaves: Mapping[str, Array], wrt: Collection[str]) -> None:
        super().__init__(expand=(), taken=leaves)
        self._paths = {id(array): path for path, array in leaves.items()}
        self._arrays: dict[int, tuple[Array, Value]] = {}  # the array too, as another may get its id
        self._known = leaves
        self._wrt, self._moving = frozenset(wrt), set[int]()  # nodes, by id, that move with what is differentiated
        self.remarks: dict[Remark, None] = {}

    def leaf_at(self, path: str) -> Value:
        return self._leaf_of(self._known[path])

    def depends(self, x: Any) -> bool:
        """Whether it is a value that moves with what the loss is differentiated by."""
        return isinstance(x, Value) and x.node.id in self._moving

    def remark(self, kind: str, text: str, line: Place | None = None) -> None:
        """Note what is taken for granted, by default at this line."""
        self.remarks.setdefault(Remark(kind, text, line or self.line))

    def decide(self, text: str, operands: Iterable[Any]) -> None:
        """Note what is decided at the point, if it is by what moves with what the loss is differentiated by."""
        if any(map(self.depends, operands)):
            self.remark("decision", f"{text} {AT_THE_POINT}")

    def recorded(self, output: Value) -> Graph:
        """The graph of the loss. Raises TraceError unless `output` is one floating number."""
        graph = self.graph(output, {})
        return Graph(graph.nodes, graph.constants, tuple(self.remarks))

    def at(self, line: Place | None, narrow: str | None) -> None:
        """Where the next ops are called, and in which dtype narrower than the leaves' they are computed."""
        self.line, self.narrow = line, narrow

    def _add(self, op: str, inputs: tuple[Node | None, ...], attributes: Mapping[str, Any], spec: Any) -> Node:
        node = super()._add(op, inputs, attributes, spec)
        if attributes.get("path") in self._wrt or any(i is not None and i.id in self._moving for i in inputs):
            self._moving.add(node.id)
        return node

    def _constant(self, array: Array, spec: Spec) -> Value:
        if id(array) in self._paths:
            return self._leaf_of(array)
        if id(array) not in self._arrays:
            held: Array = array.astype(HELD[spec.dtype], copy=False)
            self._arrays[id(array)] = array, super()._constant(held, spec)
        return self._arrays[id(array)][1]

    def _leaf_of(self, array: Any) -> Value:
        if id(array) not in self._arrays:
            self._arrays[id(array)] = array, self.leaf(self._paths[id(array)], spec_of(array))
        return self._arrays[id(array)][1]
