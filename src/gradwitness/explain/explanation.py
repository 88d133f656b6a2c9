"""All that can be said of one pass: `explain` gathers it, `report` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradwitness import registry
from gradwitness.dtypes import Array
from gradwitness.explain.descent import Descent, descend
from gradwitness.explain.publication import Comparison, compare
from gradwitness.explain.walk import Edge, Visit, walk
from gradwitness.problem import Problem
from gradwitness.published import Printed

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """A pass in float64: visits in the order of the forward pass, edges in that of the backward pass."""

    name: str
    visits: tuple[Visit, ...]
    edges: tuple[Edge, ...]
    gradients: Mapping[str, Array]
    descent: Descent | None
    published: tuple[Comparison, ...]

    @property
    def loss(self) -> float:
        value = self.visits[-1].value
        assert value is not None
        return float(value.reshape(()))

    def visit(self, name: str) -> Visit:
        """The node of that name. Raises KeyError."""
        return {visit.name: visit for visit in self.visits}[name]

    def edges_from(self, target: str) -> tuple[Edge, ...]:
        """What the op `target` sends to its operands."""
        return tuple(edge for edge in self.edges if edge.target == target)


def explain(problem: Problem, *, rate: float | None = None, published: Sequence[Printed] = ()) -> Explanation:
    """Follow one pass of the problem number by number.

    rate: also take a step of gradient descent. published: claims to hold against what is computed. Raises
    GradwitnessError for a rate that is not positive.
    """
    interpreter = registry.interpreter()
    visits, edges = walk(interpreter, problem)
    gradients = {v.name: v.cotangent for v in visits if v.role == "parameter" and v.cotangent is not None}
    descent = None if rate is None else descend(interpreter, problem, gradients, rate)
    loss = visits[-1].value
    assert loss is not None
    compared = compare(interpreter, problem, float(loss.reshape(())), gradients, published)
    return Explanation(problem.name, visits, edges, gradients, descent, compared)
