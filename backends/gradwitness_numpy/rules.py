"""The rule table: every op of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gradwitness.graph import Graph
from gradwitness.lowering import runnable
from gradwitness_numpy import (
    arrays,
    attention,
    contractions,
    elementwise,
    linear_algebra,
    losses,
    normalizations,
    pooling,
    recurrent,
    reductions,
    softmax,
)
from gradwitness_numpy.rule import Rule

__all__ = ["RULES", "one_hot_in", "with_rules"]

_FAMILIES = (
    elementwise,
    arrays,
    reductions,
    softmax,
    contractions,
    linear_algebra,
    pooling,
    normalizations,
    recurrent,
    attention,
    losses,
)

RULES: dict[str, Rule] = {name: rule for family in _FAMILIES for name, rule in family.RULES.items()}


def with_rules(graph: Graph, one_hot: Callable[..., Any], own: Mapping[str, Rule]) -> tuple[Graph, Mapping[str, Rule]]:
    """The graph in ops that have rules, and the table of these.

    one_hot: its forward, which cannot tell the dtype from the labels. own: the rules of users' own ops. Raises
    UnsupportedError naming the ops that have none.
    """
    table = {**RULES, **own} if own else RULES
    graph = runnable(graph, table)
    if "one_hot" in graph.op_names:
        table = {**table, "one_hot": replace(RULES["one_hot"], forward=one_hot)}
    return graph, table


def one_hot_in(dtype: Any) -> Callable[..., Any]:
    """The forward of one_hot, whose numbers are of this dtype."""
    return partial(RULES["one_hot"].forward, dtype=dtype)
