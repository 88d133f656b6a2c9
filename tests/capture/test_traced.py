"""What is captured is what was traced: every op and network as torch and jax run it, read back into a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reference import Reference, reference
from gradwitness.networks import NETWORKS, network
from gradwitness.networks.single_ops import op_problems
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

PROBLEMS = {problem.name: problem for problem in op_problems()}
SAME = 1e-13  # of a gradient's norm: constants that a framework rounds to float64, such as 1 / sqrt(depth)
FRAMEWORKS = ("torch", "jax")


def natively(problem: Problem, backend: str) -> Callable[[Any, Any], Any]:
    """The problem's loss in a framework's own functions, as a user of that framework would have written it."""
    lowered = registry.backend(backend).lower(problem.graph)
    constants = {path: _in(backend, x) for path, x in problem.graph.constants.items()}

    def loss(params: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        given = {**_flat(params), **_flat(batch), **constants}
        return lowered({path: given[path] for path in problem.graph.leaves})

    return loss


def _in(backend: str, array: Any) -> Any:
    if backend == "torch":
        import torch

        return torch.from_numpy(np.array(array))
    import jax

    with jax.enable_x64(True):
        return jax.numpy.asarray(array)


def _flat(structure: Any) -> dict[str, Any]:
    from gradwitness import tree

    return tree.flatten(structure, "params")


def captured(problem: Problem, backend: str) -> Problem:
    """The same problem, of the graph that is read out of the native loss."""
    graph = gw.capture(gw.Candidate(backend, natively(problem, backend)), problem.params, problem.batch)
    return Problem(problem.name, graph, problem.params, problem.batch, problem.wrt)


def expect_same(found: Reference, expected: Reference) -> None:
    assert abs(found.loss - expected.loss) <= SAME * max(abs(expected.loss), 1e-3)
    assert found.gradients.keys() == expected.gradients.keys()
    for path, exact in expected.gradients.items():
        apart = found.gradients[path].high - exact.high
        assert norm(apart) <= SAME * max(norm(exact.high), 1e-3), path


@pytest.mark.parametrize("backend", FRAMEWORKS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_an_op_comes_back_as_it_was(name: str, backend: str, interpreter: Interpreter) -> None:
    problem = PROBLEMS[name]
    expected = reference(interpreter, problem, seed=[0])
    found = reference(interpreter, captured(problem, backend), seed=[0])
    assert not found.refused
    expect_same(found, expected)


@pytest.mark.parametrize("backend", FRAMEWORKS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_as_it_was(name: str, backend: str, interpreter: Interpreter) -> None:
    problem = network(name)
    expected = reference(interpreter, problem, seed=[0])
    found = reference(interpreter, captured(problem, backend), seed=[0])
    assert not found.refused
    expect_same(found, expected)


@pytest.mark.parametrize("backend", FRAMEWORKS)
@pytest.mark.parametrize("name", ["article", "mlp", "lstm"])
def test_its_gradient_gets_the_verdict_of_the_traced_loss(name: str, backend: str) -> None:
    problem = network(name)
    report = gw.verify({backend: natively(problem, backend)}, problem.params, problem.batch)
    assert report, repr(report)
    assert all(row.captured for row in report.rows), repr(report)
