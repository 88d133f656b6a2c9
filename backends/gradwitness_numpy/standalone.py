"""What a script without gradwitness runs NumPy's candidates by: the source of this is written into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwitness_numpy.rule import Rule, Slab, Step

__all__ = ["by_hand", "gradient", "recorded", "value"]


class Recorded:
    """A value, what it was made of, and how its cotangent is pulled back there."""

    def __init__(self, value: Any, sources: Any = (), pull: Any = None) -> None:
        self.value, self.sources, self.pull = value, sources, pull

    def __getitem__(self, position: int) -> Recorded:
        """One of several results."""
        others = [np.zeros_like(part) for part in self.value]
        pull = lambda g: [[*others[:position], g, *others[position + 1 :]]]  # noqa: E731
        return Recorded(self.value[position], [self], pull)


def recorded(rule: Rule) -> Callable[..., Recorded]:
    """An op that remembers how it was called."""

    def op(*operands: Any, **attributes: Any) -> Recorded:
        sources = operands[0] if isinstance(operands[0], list) else operands
        values = [getattr(x, "value", x) for x in sources]
        output, saved = rule.run(values, attributes)
        needs = [isinstance(x, Recorded) and np.asarray(x.value).dtype.kind == "f" for x in sources]
        step = Step(rule, values, attributes, output, saved, needs)
        return Recorded(output, sources, step.pull)

    return op


def added(one: Any, other: Any) -> Any:
    other = other.dense() if isinstance(other, Slab) else other
    if one is None:
        return other
    return [added(*pair) for pair in zip(one, other, strict=True)] if isinstance(one, list) else one + other


def pulled_back(result: Recorded) -> dict[int, Any]:
    """The cotangents of all that the result was made of, by id: each when those of its consumers have come."""
    order: list[Recorded] = []

    def visit(node: Any) -> None:
        if isinstance(node, Recorded) and node not in order:
            for source in node.sources:
                visit(source)
            order.append(node)

    visit(result)
    cotangents: dict[int, Any] = {id(result): np.ones_like(result.value)}
    for node in reversed(order):
        if node.pull and id(node) in cotangents:
            for source, part in zip(node.sources, node.pull(cotangents[id(node)]), strict=True):
                if isinstance(source, Recorded) and part is not None:
                    cotangents[id(source)] = added(cotangents.get(id(source)), part)
    return cotangents


def placed(tree: Any, dtype: str, wrap: Callable[[Any], Any] = lambda array: array) -> Any:
    """The arrays, floats in this dtype."""
    if isinstance(tree, dict):
        return {key: placed(child, dtype, wrap) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [placed(child, dtype, wrap) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return wrap(tree.astype(dtype if tree.dtype.kind == "f" else tree.dtype))


def value(loss: Any, arguments: Any, dtype: str, device: str) -> float:
    found = loss(*placed(arguments, dtype))
    return float(np.reshape(getattr(found, "value", found), ()))


def gradient(loss: Any, leaf: Any, arguments: Any, dtype: str, device: str) -> Any:
    arguments = placed(arguments, dtype, Recorded)
    found = pulled_back(loss(*arguments)).get(id(leaf(*arguments)))
    return None if found is None else np.asarray(found)


def by_hand(function: Any, leaf: Any, arguments: Any, dtype: str, device: str) -> Any:
    found = leaf(function(*placed(arguments, dtype)))
    return None if found is None else np.asarray(found)
