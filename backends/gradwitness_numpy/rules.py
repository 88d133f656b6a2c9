"""The rule table: every op of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gradwitness.graph import Graph
from gradwitness_numpy import (
    arrays,
    attention,
    contractions,
    elementwise,
    losses,
    normalizations,
    pooling,
    recurrent,
    reductions,
    softmax,
)
from gradwitness_numpy.rule import Rule

__all__ = ["RULES", "rules"]

_FAMILIES = (
    elementwise,
    arrays,
    reductions,
    softmax,
    contractions,
    pooling,
    normalizations,
    recurrent,
    attention,
    losses,
)

RULES: dict[str, Rule] = {name: rule for family in _FAMILIES for name, rule in family.RULES.items()}


def rules(graph: Graph, dtype: Any) -> Mapping[str, Rule]:
    """The table for a graph that runs in `dtype`, which one_hot cannot tell from its labels."""
    if "one_hot" not in graph.op_names:
        return RULES
    return RULES | {"one_hot": replace(RULES["one_hot"], forward=partial(RULES["one_hot"].forward, dtype=dtype))}
