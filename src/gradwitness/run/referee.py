"""What is known of a graph at one point, for one run."""

from __future__ import annotations

from gradwitness import registry
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.neighbours import Neighbours
from gradwitness.problem import Problem
from gradwitness.settings import Settings

__all__ = ["graph_referee"]


def graph_referee(
    problem: Problem, dtype: str, settings: Settings, *, neighbours: Neighbours | None = None
) -> FromGraph:
    """What is known of the problem's gradient where `dtype` can hold the point; nothing is computed yet.

    neighbours: where losses are compared, if it is known already.
    """
    interpreter = registry.interpreter()
    arithmetic = interpreter.capabilities.arithmetic("float64")
    seconds = settings.seconds if settings.reference == "extended" else 0.0
    return FromGraph(interpreter, problem.rounded(dtype), dtype, arithmetic, settings.seed, seconds, neighbours)
