"""The noise floor: of the size of real rounding, proportional to the unit roundoff, zero where nothing rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwitness import ops, trace
from gradwitness.evidence.noise_floor import NoiseFloor, Spread, noise_floor, tensor_floor
from gradwitness.evidence.perturbed_runs import PerturbedRuns
from gradwitness.graph import Graph
from gradwitness.networks import network
from gradwitness.protocol import Interpreter


def floor_of(interpreter: Interpreter, name: str, dtype: str, seed: int = 0) -> NoiseFloor:
    problem = network(name, seed=seed).rounded(dtype)
    return noise_floor(runs_of(interpreter, problem.graph, problem.leaves, dtype), problem.differentiated)


def runs_of(interpreter: Interpreter, graph: Graph, leaves: dict[str, Any], dtype: str = "float32") -> PerturbedRuns:
    return PerturbedRuns(interpreter, graph.decomposed(), leaves, dtype, seed=[0])


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
    floor = noise_floor(runs_of(interpreter, graph, problem.leaves), wrt)
    ratios = [np.linalg.norm(rounded[p] - exact[p]) / floor.tensors[p].norm for p in wrt]
    assert 0.1 < np.median(ratios) < 3
    assert max(ratios) < 8


def test_copies_and_choices_have_no_floor(interpreter: Interpreter) -> None:
    x, y = np.array([[0.3, -1.2], [2.0, 0.7]]), np.array([1, 0])

    def loss(p: Any, b: Any) -> Any:
        return ops.relu(ops.concatenate([p["x"], -p["x"]], axis=1)).reshape(-1)[2]

    graph = trace(loss, {"x": x}, {"y": y})
    floor = noise_floor(runs_of(interpreter, graph, {"x": x}), ["x"])
    assert floor.value.norm == 0
    assert floor.tensors["x"].norm == 0


def test_a_long_sum_rounds_more_than_its_result(interpreter: Interpreter) -> None:
    """The contraction term: terms of size 1 that nearly cancel leave errors of their own size, not the result's."""
    x = np.tile([1.0, -1.0], 500)
    x[0] += 1e-6
    graph = trace(lambda p, b: (p["x"] * 1.0).sum() * 1.0, {"x": x}, {})
    spread = tensor_floor(runs_of(interpreter, graph, {"x": x}).losses()).norm
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


def spread_of(deviations: np.ndarray) -> Spread:
    """That of runs, one after another."""
    spread = Spread(deviations.shape[1:])
    for deviation in deviations:
        spread.add(deviation)
    return spread


@pytest.mark.parametrize("size", [1.0, 1e-180, 1e180, 0.0])
@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (2, 3, 4)])
def test_a_spread_that_keeps_no_run_is_that_of_all_of_them(shape: tuple[int, ...], size: float) -> None:
    """Also where squares would over- or underflow; an element that never moves has none."""
    deviations = size * np.random.default_rng(0).standard_normal((16, *shape))
    deviations[..., 0] *= 0.0 if shape else 1.0
    found, expected = spread_of(deviations).floor(), tensor_floor(deviations)
    assert found.runs == expected.runs == 16
    assert found.norm == pytest.approx(expected.norm, rel=1e-12, abs=0)
    assert np.allclose(found.elements, expected.elements, rtol=1e-12, atol=0)


def test_where_all_runs_jump_alike_the_spread_is_measured_from_where_they_jump_to() -> None:
    """A comparison of equals that every perturbed run decides the other way is no rounding."""
    rng = np.random.default_rng(1)
    noise = 1e-3 * rng.standard_normal((16, 6))
    jumping = noise + np.array([1.0, -1.0, 0.0, 1.0, 0.0, 0.0])
    found, centred = spread_of(jumping).floor(), tensor_floor(noise - noise.mean(axis=0))
    jumps = np.array([True, True, False, True, False, False])
    assert np.allclose(found.elements[jumps], centred.elements[jumps], rtol=1e-3)
    assert np.allclose(found.elements[~jumps], tensor_floor(noise).elements[~jumps], rtol=1e-12)
    assert found.norm < 1e-2


@pytest.mark.parametrize(
    "deviations",
    [
        np.where(np.arange(16) % 2, 1.0, -1.0),  # to either side
        np.where(np.arange(16) == 0, 0.0, 1.0),  # all but one
        np.array([1.0, 1.0]),  # two may be alike by chance
    ],
)
def test_where_they_do_not_they_count_in_full(deviations: np.ndarray) -> None:
    assert spread_of(deviations).floor().norm == pytest.approx(tensor_floor(deviations).norm)


def test_without_runs_there_is_no_spread() -> None:
    found = Spread((2, 3)).floor()
    assert found.runs == 0
    assert np.isnan(found.norm)
    assert np.all(np.isnan(found.elements))
