"""The rule table: every op of the vocabulary."""

from __future__ import annotations

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

__all__ = ["RULES"]

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
