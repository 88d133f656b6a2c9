"""How long a reference in 256 bits would take, and what to do with less time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwitness.errors import TraceError
from gradwitness.evidence.directional import directional_derivatives
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.reference import DIRECTIONS, Reference, reference
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = ["Affordable", "Effort", "affordable_reference", "effort", "reference_seconds"]

PER_NUMBER = 4e-7  # seconds for an elementwise result, or an element of a leaf, on one core of 2024
PER_PRODUCT = 7e-8  # and for each product in a contraction, or term of a sum
BACKWARD = 2.0  # of a forward pass
NOTHING = "256-bit derivatives say nothing, as at a kink or at the edge of the domain"
SIDES = 2  # to which a leaf is moved along each direction


@dataclass(frozen=True)
class Affordable:
    """What 256 bits say within the time given.

    reference: the gradient; None if it takes too long, or there is none. refused: why a leaf has no gradient in 256
    bits. refuted: the leaves whose rules are wrong, or that lie at a kink. probes: by leaf, derivatives along
    directions where there is no gradient: of those refused, or for which there was no time.
    """

    reference: Reference | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    refuted: frozenset[str] = frozenset()
    probes: Mapping[str, Sequence[Probe]] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """About how many seconds 256 bits take, within a factor of three or so.

    forward: at the point. moved: again after moving a leaf, by path: what depends on the leaf alone.
    """

    forward: float
    moved: Mapping[str, float]

    @property
    def reference(self) -> float:
        """Of a gradient, validated along directions through all leaves at once."""
        return (1 + BACKWARD + SIDES * DIRECTIONS) * self.forward

    def directions(self, seconds: float) -> dict[str, int]:
        """Along how many directions there is time to move each leaf. Those that take less time come first, and none
        has a second direction before each has had its turn."""
        left, counts = seconds - self.forward, dict.fromkeys(self.moved, 0)
        for path in sorted(self.moved, key=self.moved.__getitem__) * DIRECTIONS:
            if SIDES * self.moved[path] <= left:
                counts[path] += 1
                left -= SIDES * self.moved[path]
        return counts


def affordable_reference(
    interpreter: Interpreter, problem: Problem, *, seconds: float, seed: Sequence[int]
) -> Affordable:
    """The gradient in 256 bits if it takes no longer than that, by an estimate.

    Beyond that the rules alone are validated, on so many examples as the time allows: then there is no gradient, but
    a rule that is wrong is refuted all the same. Where examples cannot be left out, there are derivatives along so many
    directions as the time allows.
    """
    try:
        needed = effort(interpreter, problem)
        if needed.reference <= seconds:
            found = reference(interpreter, problem, seed=seed)
            sharp = dict.fromkeys(found.refused, DIRECTIONS)
            probes = directional_derivatives(interpreter, problem, sharp, seed=(*seed, 1)) if sharp else {}
            return Affordable(found, found.refused, frozenset(found.refused), probes)
        over = f"it would take about {needed.reference:.2g} s (seconds={seconds:g})"
        return _on_fewer_examples(interpreter, problem, needed, seconds, seed, over) or _along_directions(
            interpreter, problem, needed, seconds, seed, over
        )
    except Exception as error:  # noqa: BLE001  # without it the run goes on, whatever it is that 256 bits lack
        return Affordable(refused=dict.fromkeys(problem.differentiated, f"256 bits cannot say: {error}"))


def _on_fewer_examples(
    interpreter: Interpreter, problem: Problem, needed: Effort, seconds: float, seed: Sequence[int], over: str
) -> Affordable | None:
    """None if the loss allows no fewer, or even one takes too long."""
    kept = problem.examples
    while kept > 1:
        kept = min(int(kept * seconds / needed.reference), kept // 2) or 1
        fewer = _of_examples(problem, kept)
        if fewer is None:
            return None
        if reference_seconds(interpreter, fewer) <= seconds:
            refused = reference(interpreter, fewer, seed=seed).refused
            also = f"and 256 bits its rules, on {kept} of {problem.examples} examples"
            said = f"{over}; one in float64 is held against differences, {also}"
            return Affordable(None, dict.fromkeys(problem.differentiated, said) | refused, frozenset(refused))
    return None


def _along_directions(
    interpreter: Interpreter, problem: Problem, needed: Effort, seconds: float, seed: Sequence[int], over: str
) -> Affordable:
    counts = needed.directions(seconds)
    probes = directional_derivatives(interpreter, problem, counts, seed=seed) if any(counts.values()) else {}
    said = {path: f"{over}{_said(count, len(probes.get(path, ())))}" for path, count in counts.items()}
    return Affordable(refused=said, probes=probes)


def _said(tried: int, found: int) -> str:
    """What derivatives along so many directions are for."""
    if not tried:
        return ", and there is no time for its 256-bit derivatives; one in float64 is held against differences"
    if not found:
        return f"; {NOTHING}; one in float64 is held against differences"
    directions = f"{found} direction{'s' if found > 1 else ''}"
    also = f"; along {tried - found} more {NOTHING}" if found < tried else ""
    return f"; 256-bit derivatives along {directions} check one in float64{also}"


def _of_examples(problem: Problem, kept: int) -> Problem | None:
    """The problem with its first examples alone; None if its loss does not allow that."""
    if isinstance(problem.loss, Graph):  # which holds for this batch
        return None
    smaller = problem.with_examples(kept)
    try:
        return smaller if smaller.graph.op_names == problem.graph.op_names else None
    except TraceError:
        return None


def reference_seconds(interpreter: Interpreter, problem: Problem) -> float:
    """About how many seconds the gradient takes in 256 bits: forward, backward, and forward after moving each leaf."""
    return effort(interpreter, problem).reference


def effort(interpreter: Interpreter, problem: Problem) -> Effort:
    """What 256 bits would take, by the numbers and products of a forward pass in float64."""
    graph = problem.graph.decomposed()
    by_node = {leaf.id: PER_NUMBER * np.prod(leaf.spec.shape) for leaf in graph.leaves.values()}

    def count(node: Node, step: Any) -> Any:
        by_node[node.id] = PER_NUMBER * np.size(step.output) + PER_PRODUCT * _products(node, step)
        return step.output

    interpreter.forward(graph, problem.leaves, on_value=count)
    moved = {
        path: float(sum(by_node[node] for node in graph.descendants((path,)) & by_node.keys()))
        for path in problem.differentiated
    }
    return Effort(float(sum(by_node.values())), moved)


def _products(node: Node, step: Any) -> float:
    """How many terms are added up: the op's own rule on ones counts them."""
    rounding = find_op(node.op).rounding
    if rounding is None or rounding.value not in ("contraction", "sum"):
        return 0.0
    return float(np.sum(step.with_operands([_ones(operand) for operand in step.operands]).output))


def _ones(operand: Any) -> Any:
    return np.ones_like(operand) if getattr(operand, "dtype", np.dtype(int)).kind == "f" else operand
