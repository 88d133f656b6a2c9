"""Which of the rules that a user wrote is wrong: each by itself, at the inputs and cotangents of this very gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradwitness import registry
from gradwitness.capturing import captured_at
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import node_reach
from gradwitness.ops.value import BOOL, FLOAT
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared, Primals, RuleCall, RuleCalling
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness.verdict.checks import compare

__all__ = ["wrong_rules"]


def wrong_rules(prepared: Prepared, primals: Primals, backend: str, dtype: str, settings: Settings) -> list[str]:
    """What the backward of each rule is off by, in words; of those that are right, or cannot be told, nothing."""
    if not isinstance(prepared, RuleCalling):
        return []
    return [said for call in prepared.rule_calls(primals) if (said := _off(call, backend, dtype, settings))]


def _off(call: RuleCall, backend: str, dtype: str, settings: Settings) -> str:
    try:
        apart = _apart(call, backend, dtype, settings)
    except Exception:  # noqa: BLE001  # a rule that cannot be read into a graph is judged with the whole
        return ""
    if not apart:
        return ""
    path, part = max(apart.items(), key=lambda item: item[1])
    return f"{call.name} ({path}, by {part:.2g} of its norm)"


def _apart(call: RuleCall, backend: str, dtype: str, settings: Settings) -> dict[str, float]:
    """The inputs at which a rule's gradient is not the derivative, each with by how much of it."""
    problem = Problem(call.name, None, call.params, call.batch, cotangent=call.cotangent)
    graph: Any = captured_at(Candidate(backend, call.loss), problem, dtype, "cpu")
    if graph.remarks or any(getattr(node.spec, "dtype", FLOAT) == BOOL for node in graph.nodes):
        return {}  # an iteration, perhaps: the derivative of its steps need not be that of what it solves
    known = graph_referee(replace(problem, loss=graph), dtype, settings)
    arithmetic = registry.backend(backend).capabilities.arithmetic(dtype)
    found = {}
    for path, truth in known.gradients.items():
        given = call.gradient.get(path)
        error = truth.error_of(given if given is not None else 0.0 * truth.high)
        floor = known.floors_of(arithmetic).tensors[path]
        if not compare(error, floor, node_reach(floor)).ratio <= 1:
            found[path] = norm(error) / max(norm(truth.high), norm(error))
    return found
