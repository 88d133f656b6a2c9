"""What leaves of zeros give: the values and cotangents that pass by, and the gradient and loss as they were."""

from __future__ import annotations

import numpy as np
import pytest

from gradwitness import registry
from gradwitness.diagnosis.stages import stages_of
from gradwitness.diagnosis.taps import Tap, tapped
from gradwitness.explain import explain
from gradwitness.networks import network


@pytest.mark.parametrize("name", ["article", "convnet", "gru", "transformer"])
def test_taps_give_what_a_walk_through_the_pass_sees(name: str) -> None:
    problem = network(name)
    outputs = [stage.output for stage in stages_of(problem.graph, problem.differentiated)]
    watched, interpreter = tapped(problem, outputs), registry.interpreter()
    tape = interpreter.forward(watched.graph, watched.leaves)
    found = interpreter.backward(tape, watched.differentiated)
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    values: dict[int, np.ndarray] = {}

    def on_value(node: object, step: object) -> object:
        values[node.id] = step.output  # type: ignore[attr-defined]
        return step.output  # type: ignore[attr-defined]

    def on_cotangent(node: object, step: object, cotangent: object, sent: object) -> object:
        seen[node.id] = values[node.id], cotangent  # type: ignore[attr-defined, assignment]
        return sent

    plain = interpreter.forward(problem.graph, problem.leaves, on_value=on_value)
    gradients = interpreter.backward(plain, problem.differentiated, on_cotangent=on_cotangent)
    assert interpreter.loss(tape) == interpreter.loss(plain)
    for path, g in gradients.items():
        np.testing.assert_allclose(found[path], g, rtol=1e-12, atol=1e-15)
    compared = 0
    for node in outputs:
        if node.id in seen and not isinstance(node.spec, tuple):
            value, cotangent = seen[node.id]
            np.testing.assert_allclose(found[Tap.at(node).value], value, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(found[Tap.at(node).cotangent], cotangent, rtol=1e-12, atol=1e-15)
            compared += 1
    assert compared >= 2
    assert explain(problem).loss == interpreter.loss(tape)
