"""The backends "torch" and "torch.compile": every op against jax and against its definition, and the protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwitness import ops
from gradwitness.errors import GradwitnessError, ProblemError, UnsupportedError
from gradwitness.ops import OPS
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import backend
from tests.backends.bundles import FAMILIES, FAMILY_OF, bundle, edge_problems, error, faults, prepare, run, sample_calls

torch = pytest.importorskip("torch")

DTYPES = ("float64", "float32", "float16", "bfloat16")
COARSE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 0.4}  # to tell a wrong formula from rounding, no more
EDGES = edge_problems()
SQUARES = Problem(
    "squares",
    lambda p, b: (p["x"] * p["x"] * b["w"]).sum(),
    {"x": np.arange(1.0, 5.0), "unused": np.ones(2)},
    {"w": np.array([0.5, -1.0, 2.0, 4.0])},
)


def test_the_table_is_the_vocabulary() -> None:
    from gradwitness_torch.functions import FUNCTIONS

    assert list(FUNCTIONS) == list(OPS)


@pytest.mark.parametrize("op", OPS)
def test_op_agrees_with_its_definition(op: str) -> None:
    family = FAMILIES[FAMILY_OF[op]]
    assert faults(run("torch", *family), run("torch", *family, decomposed=True), op) == {}


@pytest.mark.nightly  # the reference is held against each of them every time
@pytest.mark.parametrize("op", OPS)
def test_op_agrees_with_jax(op: str) -> None:
    pytest.importorskip("jax")
    family = FAMILIES[FAMILY_OF[op]]
    assert faults(run("torch", *family), run("jax", *family), op) == {}


def test_a_planted_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwitness_torch.functions import FUNCTIONS

    right = run("torch", "silu", "tanh")
    monkeypatch.setitem(FUNCTIONS, "silu", lambda x: x * torch.sigmoid(1.0001 * x))
    wrong = prepare("torch", bundle("silu", "tanh")).value_and_gradient(bundle("silu", "tanh").primals)
    assert set(faults(wrong, right, "silu")) == {"value", "silu_0.0", "silu_1.0", "silu_2.0"}
    assert set(faults(wrong, right, "tanh")) == {"value"}


@pytest.mark.parametrize("dtype", COARSE)
@pytest.mark.parametrize("family", FAMILIES)
def test_low_precision_runs_natively(family: str, dtype: str) -> None:
    gradient, expected = run("torch", *FAMILIES[family], dtype=dtype)[1], run("torch", *FAMILIES[family])[1]
    worst = {p: error(None if g is None else g.astype(float), expected[p]) for p, g in gradient.items()}
    assert max(worst.values()) < COARSE[dtype]
    assert {g.dtype for g in gradient.values() if g is not None} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_result_keeps_the_dtype(dtype: str) -> None:
    from gradwitness_torch.functions import functions

    table, narrow = functions(dtype), getattr(torch, dtype)
    for op, operands, attributes in sample_calls():
        tensors = [None if a is None else torch.as_tensor(a) for a in operands]
        cast = [t.to(narrow) if t is not None and t.is_floating_point() else t for t in tensors]
        results = table[op.name](*([cast] if op.variadic else cast), **attributes)
        for result in results if isinstance(results, tuple) else (results,):
            assert result.dtype in (narrow, torch.bool), op.name


@pytest.mark.parametrize("case", EDGES)
def test_edges_agree_with_their_definitions(case: str) -> None:
    problem = EDGES[case]
    value, gradient = prepare("torch", problem).value_and_gradient(problem.primals)
    definition = backend("torch").prepare(
        Candidate("torch", problem.graph.decomposed()), problem, dtype="float64", device="cpu"
    )
    expected, slopes = definition.value_and_gradient(problem.primals)
    assert value == pytest.approx(expected, rel=1e-12)
    assert {path: error(g, slopes[path]) < 1e-12 for path, g in gradient.items()} == dict.fromkeys(gradient, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fully_masked_row_is_zero_with_finite_gradients(dtype: str) -> None:
    problem = EDGES["attention row fully masked"].rounded(dtype)
    gradient = prepare("torch", problem, dtype).value_and_gradient(problem.primals)[1]
    assert all(g is not None and np.isfinite(g).all() for g in gradient.values())
    assert not gradient["q"][:, :, 1].any()  # type: ignore[index]  # not None, as just asserted


@pytest.mark.parametrize("mask", [np.array([True, False, True]), np.array(True)], ids=["vector", "scalar"])
def test_an_attention_mask_of_fewer_than_two_dimensions_broadcasts(mask: Any) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))

    def loss(params: Any, batch: Any) -> Any:
        return ops.scaled_dot_product_attention(params["q"], batch["x"], batch["x"], batch["mask"]).sum()

    narrow = Problem("narrow", loss, {"q": x}, {"x": x, "mask": mask})
    full = Problem("full", loss, {"q": x}, {"x": x, "mask": np.broadcast_to(mask, (3, 3)).copy()})
    found, expected = (prepare("torch", p).value_and_gradient({"q": x})[1]["q"] for p in (narrow, full))
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_on_the_host(dtype: str) -> None:
    value, gradient = prepare("torch", SQUARES, dtype).value_and_gradient(SQUARES.primals)
    assert type(value) is float
    assert gradient["unused"] is None
    assert gradient["x"] is not None
    assert gradient["x"].dtype == (np.float64 if dtype == "float64" else np.float32)
    assert gradient["x"].tolist() == [1.0, -4.0, 12.0, 32.0]


def test_leaves_that_share_a_gradient_get_arrays_of_their_own() -> None:
    problem = Problem("sum", lambda p, b: (p["a"] + p["b"]).sum(), {"a": np.ones(3), "b": np.ones(3)}, {})
    gradient = prepare("torch", problem).value_and_gradient(problem.primals)[1]
    assert not np.shares_memory(gradient["a"], gradient["b"])
    assert all(g is not None and g.flags.writeable for g in gradient.values())


def test_each_tape_gives_the_gradient_of_its_own_forward() -> None:
    prepared = prepare("torch", SQUARES)
    first, second = (prepared.place({**SQUARES.primals, "x": k * SQUARES.primals["x"]}) for k in (1, 10))
    tapes = prepared.forward(first), prepared.forward(second)
    found = [*map(prepared.backward, tapes), prepared.forward_backward(first)]
    assert [prepared.fetch(gradient)["x"].tolist() for gradient in found] == [  # type: ignore[union-attr]
        [1.0, -4.0, 12.0, 32.0],
        [10.0, -40.0, 120.0, 320.0],
        [1.0, -4.0, 12.0, 32.0],
    ]
    assert first["x"].grad is None
    with pytest.raises(GradwitnessError, match="used up"):
        prepared.backward(tapes[0])


def test_the_callers_world_is_as_it_was() -> None:
    problem = EDGES["attention row fully masked"]
    before = {path: (id(a), a.tobytes()) for path, a in problem.leaves.items()}
    state = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().tolist()
    with torch.no_grad():
        prepare("torch", problem).value_and_gradient(problem.primals)
        assert not torch.is_grad_enabled()
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().tolist()) == state
    assert {path: (id(a), a.tobytes()) for path, a in problem.leaves.items()} == before


def test_the_callers_default_dtype_is_not_used() -> None:
    torch.set_default_dtype(torch.float16)
    try:
        problem = EDGES["literals"]
        assert prepare("torch", problem).value(problem.primals) == pytest.approx(
            _value_by_definition(problem), rel=1e-14
        )
    finally:
        torch.set_default_dtype(torch.float32)


def _value_by_definition(problem: Problem) -> float:
    x, y = problem.primals["x"], problem.leaves["y"]
    terms = 2.0**x + np.maximum(x, 0) / (3 + x**2) + np.minimum(0.5, x) + np.where(x > 0, 1 / 3, 0.1) * x
    return float((terms + np.where(y < 3, x, 2.0) + x).sum())


@pytest.mark.parametrize("caller", ["untouched", "older family", "newer family"])
def test_precision_is_held_and_put_back(caller: str) -> None:
    from gradwitness_torch.precision import highest, settings

    with highest():  # so that this test, too, leaves no trace
        if caller == "older family":
            torch.set_float32_matmul_precision("medium")
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
        elif caller == "newer family":
            if not hasattr(torch.backends, "fp32_precision"):
                pytest.skip("this torch has only the older family")
            torch.backends.fp32_precision = "tf32"
            torch.backends.cuda.matmul.fp32_precision = "none"
            torch.backends.cudnn.conv.fp32_precision = "tf32"
        before = settings()
        held = backend("torch").settings("highest")
        assert {v for k, v in held.items() if k.endswith("fp32_precision")} <= {"ieee"}
        assert held["float32_matmul_precision"] == "highest"
        assert {v for k, v in held.items() if "allow" in k} == {"False"}
        assert settings() == before == backend("torch").settings("default")


@pytest.mark.parametrize("name", ["torch", "torch.compile"])
def test_what_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"in int8 \(it has float64"):
        backend(name).prepare(Candidate(name), SQUARES, dtype="int8", device="cpu")
    with pytest.raises(UnsupportedError, match=r"on tpu here \(it has cpu"):
        backend(name).prepare(Candidate(name), SQUARES, dtype="float64", device="tpu")
    with pytest.raises(UnsupportedError, match="'lowest'"):
        backend(name).precision("lowest")


def test_a_graph_over_other_leaves_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"reads y, .* 'squares' lacks; its leaves: x, unused, w"):
        backend("torch").prepare(Candidate("torch", EDGES["literals"].graph), SQUARES, dtype="float64", device="cpu")


@pytest.mark.parametrize("module", ["gradwitness_torch.eager", "gradwitness_torch.compiled"])
def test_importing_the_adapter_imports_no_framework(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'jax'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


@pytest.mark.nightly  # each family is held against its truth in tests/conformance
def test_compiled_bundle_agrees_with_eager() -> None:
    names = [n for f, members in FAMILIES.items() if f not in ("elementwise", "arrays") for n in members]
    compiled, eager = (run(name, *names, samples=1) for name in ("torch.compile", "torch"))
    assert {op: found for op in names if (found := faults(compiled, eager, op))} == {}


def _chain(length: int) -> Callable[[Any, Any], Any]:
    def loss(p: Any, b: Any) -> Any:
        x = p["x"]
        for _ in range(length):
            x = ops.sin(x)
        return x.sum()

    return loss


@pytest.mark.nightly
def test_compiled_once_and_for_all() -> None:
    """More graphs than dynamo's recompile limit, and nothing compiled after prepare; its configuration stays."""
    from torch._dynamo.utils import counters
    from torch._inductor import config

    before = config.save_config()
    for count in range(1, 10):
        problem = Problem("sines", _chain(count), {"x": np.arange(1.0, count + 1)}, {})
        prepared, reference = prepare("torch.compile", problem), prepare("torch", problem)
        compilations = dict(counters["stats"])
        first, second = (prepared.place({"x": k * problem.primals["x"]}) for k in (1, 2))
        tapes = prepared.forward(first), prepared.forward(second)
        for tape, k in zip(tapes, (1, 2), strict=True):
            expected = reference.value_and_gradient({"x": k * problem.primals["x"]})[1]["x"]
            assert error(prepared.backward(tape)["x"].numpy(), expected) < 1e-13
        assert prepared.value(problem.primals) == prepared.value_and_gradient(problem.primals)[0]
        assert dict(counters["stats"]) == compilations
    assert config.save_config() == before
