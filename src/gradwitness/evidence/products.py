"""The contractions of a graph, and the matrix products of each: its value, and the cotangent of each factor.

A library chooses by their sizes how it multiplies. Which matrix has the rows depends on how a framework writes the
cotangents: this is torch's way (`mm_mat1_backward` and `mm_mat2_backward` in `FunctionsManual.cpp`, `_matmul_impl` in
`LinearAlgebra.cpp`).
"""

from __future__ import annotations

import math

import numpy as np

from gradwitness.arithmetic import Product
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.ops.vocabulary import EXACT, ROUNDED, Rounding

__all__ = ["FACTORS", "contractions", "is_of_results", "multiplies_results", "products", "rounding_of"]

Shape = tuple[int, ...]
FACTORS = 2  # of the operands of a contraction; a third, a bias, is added


def rounding_of(node: Node) -> Rounding:
    """A fused op that was kept whole counts as rounded once."""
    return find_op(node.op).rounding or ROUNDED


def contractions(graph: Graph) -> frozenset[str]:
    """The names of those in the graph."""
    return frozenset(node.op for node in graph.decomposed().nodes if _is_contraction(node))


def multiplies_results(graph: Graph) -> bool:
    """Whether some contraction multiplies two results of ops."""
    return any(is_of_results(node) for node in graph.decomposed().nodes)


def is_of_results(node: Node) -> bool:
    """Whether this contraction multiplies two results of ops."""
    return _is_contraction(node) and not any(_is_given(i) for i in node.inputs[:FACTORS])


def _is_contraction(node: Node) -> bool:
    return node.is_op and rounding_of(node).value == "contraction"


def _is_given(node: Node | None) -> bool:
    """Whether this is a leaf, or a copy of one."""
    if node is None:
        return False
    while node.is_op and find_op(node.op).rounding is EXACT and len(node.inputs) == 1 and node.inputs[0] is not None:
        node = node.inputs[0]
    return not node.is_op


def products(node: Node) -> tuple[Product | None, Product | None, Product | None]:
    """That of the node's value, and those of the cotangents of its two factors; None for what is no matrix product."""
    if node.op != "matmul":
        return None, None, None
    x, y = node.inputs
    assert x is not None  # no operand of matmul may be absent
    assert y is not None
    x_by_column, y_by_column = (factor.op == "transpose" for factor in (x, y))
    if len(x.spec.shape) <= 2 < len(y.spec.shape):  # torch multiplies the transposed matrices the other way round
        shapes = _transposed(y.spec.shape), _transposed(x.spec.shape)
        value, by_y, by_x = _of_shapes(*shapes, (False, not x_by_column))
        return value, by_x, by_y
    return _of_shapes(x.spec.shape, y.spec.shape, (x_by_column, y_by_column))


def _transposed(shape: Shape) -> Shape:
    return (*shape[:-2], *reversed(shape[-2:]))


def _of_shapes(x: Shape, y: Shape, by_column: tuple[bool, bool]) -> tuple[Product, Product, Product]:
    """by_column: whether each of two matrices is a transposed one, its columns contiguous."""
    inner = x[-1]
    if len(y) > 2:
        batch = math.prod(np.broadcast_shapes(x[:-2], y[:-2]))
        rows, columns = math.prod(x[-2:-1]), y[-1]
        return (
            Product(rows, inner, columns, batch),
            Product(rows, columns, inner, batch),
            Product(inner, rows, columns, batch),
        )
    rows = math.prod(x[:-1])  # those of a batch are merged
    if len(y) == 1:  # a vector: one way it is a matrix by a vector, back an outer product
        return Product(rows, inner, 1), Product(rows, 1, inner), Product(inner, rows, 1)
    columns = y[-1]
    by_x = _single(inner, columns, rows) if by_column[0] and len(x) == 2 else _single(rows, columns, inner)
    by_y = _single(columns, rows, inner) if by_column[1] else _single(inner, rows, columns)
    return _single(rows, inner, columns), by_x, by_y


def _single(rows: int, inner: int, columns: int) -> Product:
    """Of two matrices; a column counts as a row, as its memory is the same."""
    return Product(1, inner, rows) if columns == 1 else Product(rows, inner, columns)
