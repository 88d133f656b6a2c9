"""The backend "jax": every op against its definition (against torch in test_torch), and the protocol."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.errors import ProblemError, UnsupportedError
from gradwitness.ops import OPS
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import backend
from tests.backends.bundles import FAMILIES, FAMILY_OF, edge_problems, error, faults, prepare, run, sample_calls

jax = pytest.importorskip("jax")

DTYPES = ("float64", "float32", "float16", "bfloat16")
EDGES = edge_problems()
SQUARES = Problem(
    "squares",
    lambda p, b: (p["x"] * p["x"] * b["w"]).sum(),
    {"x": np.arange(1.0, 5.0), "unused": np.ones(2)},
    {"w": np.array([0.5, -1.0, 2.0, 4.0])},
)


def test_the_table_is_the_vocabulary() -> None:
    from gradwitness_jax.functions import FUNCTIONS

    assert list(FUNCTIONS) == list(OPS)


@pytest.mark.nightly
@pytest.mark.parametrize("op", OPS)
def test_op_agrees_with_its_definition(op: str) -> None:
    family = FAMILIES[FAMILY_OF[op]]
    assert faults(run("jax", *family), run("jax", *family, decomposed=True), op) == {}


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_result_keeps_the_dtype(dtype: str) -> None:
    from gradwitness_jax.functions import functions

    with jax.enable_x64(dtype == "float64"):
        table, narrow = functions(dtype), jax.numpy.dtype(dtype)
        for op, operands, attributes in sample_calls():
            cast = [a.astype(narrow) if a is not None and a.dtype.kind == "f" else a for a in operands]
            call = partial(table[op.name], **attributes)
            results = jax.eval_shape(call, *([cast] if op.variadic else cast))
            assert {r.dtype.name for r in jax.tree.leaves(results)} <= {dtype, "bool"}, op.name


def test_binary_cross_entropy_keeps_the_digits_of_small_logits() -> None:
    """Its gradient by a target is the negated logit: no rounding is in it but the logit's own."""
    logits = np.array([6e-5, -1e-3, 0.0, 3.0], np.float32)

    def loss(params: Any, batch: Any) -> Any:
        return ops.binary_cross_entropy_with_logits(batch["z"], params["t"], reduction="sum")

    problem = Problem("targets", loss, {"t": np.array([0.25, 0.5, 0.75, 1.0])}, {"z": logits.astype(np.float64)})
    found = prepare("jax", problem, "float32").value_and_gradient(problem.primals)[1]["t"]
    np.testing.assert_array_equal(found, -logits)


@pytest.mark.parametrize("case", EDGES)
def test_edges_agree_with_torch(case: str) -> None:
    pytest.importorskip("torch")
    problem = EDGES[case]
    value, gradient = prepare("jax", problem).value_and_gradient(problem.primals)
    expected, slopes = prepare("torch", problem).value_and_gradient(problem.primals)
    assert value == pytest.approx(expected, rel=1e-12)
    assert {path: error(g, slopes[path]) < 1e-12 for path, g in gradient.items()} == dict.fromkeys(gradient, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fully_masked_row_is_zero_with_finite_gradients(dtype: str) -> None:
    problem = EDGES["attention row fully masked"].rounded(dtype)
    gradient = prepare("jax", problem, dtype).value_and_gradient(problem.primals)[1]
    assert all(g is not None and np.isfinite(g).all() for g in gradient.values())
    assert not gradient["q"][:, :, 1].any()  # type: ignore[index]  # not None, as just asserted


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_on_the_host(dtype: str) -> None:
    value, gradient = prepare("jax", SQUARES, dtype).value_and_gradient(SQUARES.primals)
    assert type(value) is float
    assert gradient["unused"] is None
    assert gradient["x"] is not None
    assert gradient["x"].dtype == (np.float64 if dtype == "float64" else np.float32)
    assert gradient["x"].flags.writeable
    assert gradient["x"].tolist() == [1.0, -4.0, 12.0, 32.0]


@pytest.mark.parametrize("ambient", [False, True])
def test_x64_is_the_candidates_and_not_the_callers(ambient: bool) -> None:
    problem = EDGES["ignored labels"]
    with jax.enable_x64(ambient):
        wide, narrow = prepare("jax", problem), prepare("jax", problem, "float32")
        placed = wide.place(problem.primals)
        assert {a.dtype.name for a in wide.backward(wide.forward(placed)).values()} == {"float64"}
        assert {a.dtype.name for a in narrow.forward_backward(narrow.place(problem.primals)).values()} == {"float32"}
        assert jax.config.jax_enable_x64 == ambient


def test_each_tape_gives_the_gradient_of_its_own_forward() -> None:
    prepared = prepare("jax", SQUARES)
    setup = prepared.setup_seconds
    first, second = (prepared.place({**SQUARES.primals, "x": k * SQUARES.primals["x"]}) for k in (1, 10))
    assert prepared.setup_seconds > setup  # what is timed was compiled by the first place()
    tapes = prepared.forward(first), prepared.forward(second)
    assert prepared.backward(tapes[0])["x"].tolist() == [1.0, -4.0, 12.0, 32.0]
    assert prepared.backward(tapes[1])["x"].tolist() == [10.0, -40.0, 120.0, 320.0]
    assert prepared.forward_backward(first)["x"].tolist() == [1.0, -4.0, 12.0, 32.0]
    prepared.wait(tapes)


def test_nothing_compiles_after_place(caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare("jax", SQUARES)
    placed = prepared.place(SQUARES.primals)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        prepared.value(SQUARES.primals)
        prepared.value_and_gradient(SQUARES.primals)
        prepared.backward(prepared.forward(prepared.place(SQUARES.primals)))
        prepared.forward_backward(placed)
        assert caplog.messages == []
        jax.jit(lambda x: 3 * x)(1.0)
        assert any("Compiling" in message for message in caplog.messages)


def test_the_callers_world_is_as_it_was() -> None:
    problem = EDGES["attention row fully masked"]
    before = {path: (id(a), a.tobytes()) for path, a in problem.leaves.items()}
    x64, precision = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    with backend("jax").precision("highest"):
        prepared = prepare("jax", problem)
        prepared.value_and_gradient(problem.primals)
        assert backend("jax").settings("default") == {"jax_default_matmul_precision": "highest"}
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == (x64, precision)
    assert {path: (id(a), a.tobytes()) for path, a in problem.leaves.items()} == before


def test_placed_arrays_are_copies() -> None:
    prepared = prepare("jax", SQUARES)
    primals = {path: a.copy() for path, a in SQUARES.primals.items()}
    placed = prepared.place(primals)
    primals["x"][:] = np.nan
    assert np.isfinite(np.asarray(placed["x"])).all()


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"in int8 \(it has float64"):
        backend("jax").prepare(Candidate("jax"), SQUARES, dtype="int8", device="cpu")
    with pytest.raises(UnsupportedError, match=r"on tpu here \(it has cpu"):
        backend("jax").prepare(Candidate("jax"), SQUARES, dtype="float64", device="tpu")
    with pytest.raises(ProblemError, match=r"reads y, .* 'squares' lacks; its leaves: x, unused, w"):
        backend("jax").prepare(Candidate("jax", EDGES["literals"].graph), SQUARES, dtype="float64", device="cpu")


def test_importing_the_adapter_imports_no_framework() -> None:
    code = "import sys, gradwitness_jax; sys.exit(bool({'torch', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_loss_in_float32_whatever_its_params_are_runs(dtype: str) -> None:
    """As mixed precision has it: its cotangent is of another dtype than the params."""

    def loss(p: Any, d: Any) -> Any:
        return jax.numpy.sum(jax.numpy.tanh(p["w"].astype("float32")) * d["x"].astype("float32"))

    draw = np.random.default_rng(0).standard_normal
    report = gw.verify({"jax": loss}, {"w": draw((4, 3))}, {"x": draw((4, 3))}, dtypes=dtype)
    assert {str(row.verdict) for row in report.rows} <= {"agree", "inconclusive"}, repr(report)
