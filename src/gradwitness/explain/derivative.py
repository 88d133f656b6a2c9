"""Local derivatives, from nothing but each op's own vjp: what it sends back for a cotangent of ones, or of one 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.graph import Node
from gradwitness.ops.vocabulary import find_op

__all__ = ["dense", "jacobians", "local_derivatives", "words"]


WORDS = {  # how an op sends a cotangent back, by (op, operand)
    ("linear", "x"): "cotangent @ weight",
    ("linear", "weight"): "cotangent^T @ x: what comes back times what went in",
    ("linear", "bias"): "the cotangent, summed over the rows",
    ("matmul", "x"): "cotangent @ y^T",
    ("matmul", "y"): "x^T @ cotangent: what went in times what comes back",
    ("broadcast_to", "x"): "the cotangent, summed over the copies",
    ("take", "x"): "each row's cotangent, put back where the row came from; one picked twice collects the sum",
    ("conv2d", "x"): "the cotangent spread over each window by the kernel's weights",
    ("conv2d", "weight"): "the images correlated with the cotangent",
    ("conv2d", "bias"): "the cotangent, summed over images, rows and columns",
}
FAMILY_WORDS = {  # the same for all others, by family
    "elementwise": "cotangent * local derivative",
    "arrays": "the cotangent, put back where the values came from",
    "reductions": "the cotangent, handed to every element that took part, times its local derivative",
    "softmax": "each row's cotangent through the row's Jacobian",
    "contractions": "the cotangent times the other operand",
    "linear_algebra": "the cotangent, solved against the transpose of the factor",
    "pooling": "each window's cotangent, handed to the elements that made its value",
    "normalizations": "the cotangent through scale, mean and variance, which depend on every element of the group",
    "recurrent": "the cotangents of the states through the gates",
    "attention": "the cotangent through the weighted sum and the softmax of the scores",
    "losses": "cotangent * local derivative",
}


def dense(part: Any) -> Array:
    """What an op sends, as an array: an index sends only the part that it picked."""
    return np.asarray(part.dense() if hasattr(part, "dense") else part)


def words(op: str, operand: str) -> str:
    """How this op sends a cotangent back to this operand."""
    family = find_op(op).family
    return WORDS.get((op, operand)) or FAMILY_WORDS.get(family) or f"the cotangent, pulled back through {op}"


def local_derivatives(node: Node, step: Any) -> list[Array | None]:
    """The derivative by each operand, where it is one number per element: a cotangent of ones, pulled back.

    That holds for elementwise ops, whose operands are first repeated to the result's shape (an op that broadcasts
    sums over the copies, and the sum would hide each copy's own derivative), and for scalar results.
    """
    shape = np.shape(step.output)
    if find_op(node.op).family == "elementwise":
        step = step.with_operands([None if o is None else np.broadcast_to(o, shape) for o in step.operands])
    elif np.size(step.output) != 1:
        return [None] * len(step.operands)
    return [_array(part) for part in step.pull(np.ones(shape))]


def jacobians(step: Any) -> list[Array | None]:
    """d result / d operand for each operand, of shape (*result, *operand): one unit cotangent after the other."""
    shape = np.shape(step.output)
    rows = []
    for at in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[at] = 1.0
        rows.append([_array(part) for part in step.pull(unit)])
    return [_stacked(list(parts), shape) for parts in zip(*rows, strict=True)]


def _stacked(parts: list[Array | None], shape: tuple[int, ...]) -> Array | None:
    arrays = [part for part in parts if part is not None]
    return np.reshape(arrays, (*shape, *arrays[0].shape)) if len(arrays) == len(parts) else None


def _array(part: Any) -> Array | None:
    return None if part is None else dense(part)
