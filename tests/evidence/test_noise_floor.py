"""The noise floor: of the size of real rounding, proportional to the unit roundoff, zero where nothing rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwitness import ops, trace
from gradwitness.evidence.noise_floor import NoiseFloor, noise_floor, value_floor
from gradwitness.networks import network
from gradwitness.protocol import Interpreter


def floor_of(interpreter: Interpreter, name: str, dtype: str, seed: int = 0) -> NoiseFloor:
    problem = network(name, seed=seed).rounded(dtype)
    return noise_floor(interpreter, problem.graph, problem.leaves, problem.differentiated, dtype, seed=[0])


def test_the_floor_is_proportional_to_the_unit_roundoff(interpreter: Interpreter) -> None:
    wide, narrow = floor_of(interpreter, "mlp", "float64"), floor_of(interpreter, "mlp", "float32")
    for path in wide.tensors:
        ratio = narrow.tensors[path].norm / wide.tensors[path].norm / 2.0**29
        assert 0.3 < ratio < 3


@pytest.mark.parametrize("name", ["mlp", "layernorm_mlp", "gru", "transformer"])
def test_the_error_of_a_float32_run_is_of_the_floors_size(interpreter: Interpreter, name: str) -> None:
    problem = network(name).rounded("float32")
    graph, wrt = problem.graph, problem.differentiated
    exact = interpreter.backward(interpreter.forward(graph, problem.leaves), wrt)
    narrow = {p: a.astype(np.float32) if a.dtype.kind == "f" else a for p, a in problem.leaves.items()}
    rounded = interpreter.backward(interpreter.forward(graph, narrow), wrt)
    floor = noise_floor(interpreter, graph, problem.leaves, wrt, "float32", seed=[1])
    ratios = [np.linalg.norm(rounded[p] - exact[p]) / floor.tensors[p].norm for p in wrt]
    assert 0.1 < np.median(ratios) < 3
    assert max(ratios) < 8


def test_copies_and_choices_have_no_floor(interpreter: Interpreter) -> None:
    x, y = np.array([[0.3, -1.2], [2.0, 0.7]]), np.array([1, 0])

    def loss(p: Any, b: Any) -> Any:
        return ops.relu(ops.concatenate([p["x"], -p["x"]], axis=1)).reshape(-1)[2]

    graph = trace(loss, {"x": x}, {"y": y})
    floor = noise_floor(interpreter, graph, {"x": x}, ["x"], "float32", seed=[0])
    assert floor.value.norm == 0
    assert floor.tensors["x"].norm == 0


def test_a_long_sum_rounds_more_than_its_result(interpreter: Interpreter) -> None:
    """The contraction term: terms of size 1 that nearly cancel leave errors of their own size, not the result's."""
    x = np.tile([1.0, -1.0], 500)
    x[0] += 1e-6
    graph = trace(lambda p, b: (p["x"] * 1.0).sum() * 1.0, {"x": x}, {})
    spread = value_floor(interpreter, graph, {"x": x}, "float32", seed=[0]).norm
    assert 0.3 * 2.0**-24 * np.sqrt(1000) < spread < 6 * 2.0**-24 * np.sqrt(1000)


def test_rows_without_gradient_keep_no_floor_but_underflow(interpreter: Interpreter) -> None:
    """Shrinking towards the row must not lend noise to the rows of an embedding that were never looked up."""
    floor = floor_of(interpreter, "lstm", "float32").tensors["embedding"].elements
    silent = np.all(floor < 1e-40, axis=1)
    assert silent.any()
    assert not silent.all()
    assert np.all(floor[~silent] > 1e-12)


def test_the_same_seed_gives_the_same_floor(interpreter: Interpreter) -> None:
    first, second = floor_of(interpreter, "article", "float32"), floor_of(interpreter, "article", "float32")
    assert first.value.norm == second.value.norm
    assert all(np.array_equal(first.tensors[p].elements, second.tensors[p].elements) for p in first.tensors)
