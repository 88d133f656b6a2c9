"""How long a reference in 256 bits would take, and what to do with less time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwitness.errors import TraceError
from gradwitness.evidence.reference import DIRECTIONS, Reference, reference
from gradwitness.graph import Node
from gradwitness.ops import find_op
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["affordable_reference", "reference_seconds"]

PER_NUMBER = 4e-7  # seconds for an elementwise result, on one core of 2024
PER_PRODUCT = 7e-8  # and for each product in a contraction, or term of a sum
BACKWARD = 2.0  # of a forward pass
PASSES = 2 * DIRECTIONS  # after moving each leaf


def affordable_reference(
    interpreter: Interpreter, problem: Problem, *, seconds: float, seed: Sequence[int]
) -> tuple[Reference | None, dict[str, str], frozenset[str]]:
    """The gradient in 256 bits if it takes no longer than that, by an estimate; why there is none; what is refuted.

    Beyond that the rules alone are validated, on so many examples as the time allows: then there is no gradient, but
    a rule that is wrong is refuted all the same.
    """
    try:
        needed = reference_seconds(interpreter, problem)
        if needed <= seconds:
            found = reference(interpreter, problem, seed=seed)
            return found, found.refused, frozenset(found.refused)
        return None, *_on_fewer_examples(interpreter, problem, needed, seconds, seed)
    except Exception as error:  # noqa: BLE001  # without it the run goes on, whatever it is that 256 bits lack
        return None, dict.fromkeys(problem.differentiated, f"256 bits cannot say: {error}"), frozenset()


def _on_fewer_examples(
    interpreter: Interpreter, problem: Problem, needed: float, seconds: float, seed: Sequence[int]
) -> tuple[dict[str, str], frozenset[str]]:
    over = f"it would take about {needed:.0f} s (reference_seconds={seconds:g}); differences confirm one in float64"
    kept = problem.examples
    while kept > 1:
        kept = min(int(kept * seconds / needed), kept // 2) or 1
        fewer = _of_examples(problem, kept)
        if fewer is None:
            break
        if reference_seconds(interpreter, fewer) <= seconds:
            found = reference(interpreter, fewer, seed=seed)
            also = f", and 256 bits its rules, on {kept} of {problem.examples} examples"
            return dict.fromkeys(problem.differentiated, over + also) | found.refused, frozenset(found.refused)
    return dict.fromkeys(problem.differentiated, over), frozenset()


def _of_examples(problem: Problem, kept: int) -> Problem | None:
    """The problem with its first examples alone; None if its loss does not allow that."""
    smaller = problem.with_examples(kept)
    try:
        return smaller if smaller.graph.op_names == problem.graph.op_names else None
    except TraceError:
        return None


def reference_seconds(interpreter: Interpreter, problem: Problem) -> float:
    """About how many seconds the gradient takes in 256 bits: forward, backward, and forward after moving each leaf.

    Right within a factor of three or so. Only what depends on a leaf is computed again after moving it.
    """
    graph = problem.graph.decomposed()
    by_node: dict[int, float] = {}

    def count(node: Node, step: Any) -> Any:
        by_node[node.id] = PER_NUMBER * np.size(step.output) + PER_PRODUCT * _products(node, step)
        return step.output

    interpreter.forward(graph, problem.leaves, on_value=count)
    total = (1 + BACKWARD) * sum(by_node.values())
    for path in problem.differentiated:
        moved = graph.descendants((path,))
        total += PASSES * sum(seconds for node, seconds in by_node.items() if node in moved)
    return float(total)


def _products(node: Node, step: Any) -> float:
    """How many terms are added up: the op's own rule on ones counts them."""
    rounding = find_op(node.op).rounding
    if rounding is None or rounding.value not in ("contraction", "sum"):
        return 0.0
    return float(np.sum(step.with_operands([_ones(operand) for operand in step.operands]).output))


def _ones(operand: Any) -> Any:
    return np.ones_like(operand) if getattr(operand, "dtype", np.dtype(int)).kind == "f" else operand
