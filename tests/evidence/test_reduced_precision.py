"""`reduced-precision`: TF32 and bfloat16 products are told by name, and no fault is taken for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn.attention import SDPBackend, sdpa_kernel

import gradwitness as gw
from gradwitness import ops, registry, tree
from gradwitness.arithmetic import Operands, Reduction, Sums
from gradwitness.cli import cli
from gradwitness.evidence import testimony
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.prediction import Prediction
from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Report, Row
from gradwitness.verdict import Judgement, Moved, Verdict, recognised
from gradwitness.verify import Settings, verify_problem
from tests.evidence.reduced import BFLOAT16, TF32, Accumulating, ShortOperands

Array = np.ndarray[Any, Any]
Gradients = dict[str, Array]
SETTINGS = Settings(dtypes=("float32",), precision="default")
FAULTS = {Verdict.DISAGREE, Verdict.DIFFERENT_LOSS}


def verified(problem: Problem, candidate: Candidate | None = None, settings: Settings = SETTINGS) -> list[Row]:
    return verify_problem(problem, {"torch": candidate or Candidate("torch")}, settings)


def verdicts(rows: list[Row]) -> dict[str | None, Verdict]:
    return {row.parameter: row.verdict for row in rows}


def faulty(problem: Problem, change: Callable[[Gradients], Gradients]) -> Candidate:
    """torch's own loss and gradients, these changed."""
    lowered = registry.backend("torch").lower(problem.graph)

    def value_and_gradient(params: Any, batch: Any) -> tuple[Any, Any]:
        inputs = {path: x.detach().requires_grad_() for path, x in tree.flatten(params, "params").items()}
        loss = lowered({**inputs, **tree.flatten(batch, "batch")})
        found = torch.autograd.grad(loss, list(inputs.values()))
        gradients = dict(zip(inputs, (g.double().numpy() for g in found), strict=True))
        return loss.detach(), tree.rebuild(params, change(gradients), "params")

    return Candidate("torch", value_and_gradient=value_and_gradient)


@pytest.mark.parametrize(
    ("operands", "says"),
    [
        (TF32, "TF32 operands (10 bits)"),
        (Operands(10, nearest=False), "TF32 operands (10 bits, the rest cut off)"),
        (BFLOAT16, "bfloat16 operands (7 bits)"),
        (Operands(7, nearest=False), "bfloat16 operands (7 bits, the rest cut off)"),
    ],
)
@pytest.mark.parametrize("name", ["article", "mlp", "deep_sigmoid", "convnet", "gru"])
def test_short_operands_are_told_by_name(name: str, operands: Operands, says: str) -> None:
    with ShortOperands(operands):
        rows = verified(network(name))
    assert {row.verdict for row in rows} == {Verdict.REDUCED_PRECISION}, repr(Report(tuple(rows), {}))
    assert all(f"as matrix products of {says} would be: " in row.message for row in rows)
    assert all("--precision highest avoids it" in row.message for row in rows)
    assert all(row.error is not None and row.floor is not None and row.error > 12 * row.floor for row in rows[:1])


def test_attention_is_recognised_though_torch_scales_its_factors_first() -> None:
    settings = Settings(dtypes=("float32",), precision="default", reference="differences")
    problem = network("transformer", blocks=1, width=32, heads=4, depth=8, hidden=64)
    with ShortOperands(TF32), sdpa_kernel(SDPBackend.MATH):
        rows = verified(problem, settings=settings)
    assert {row.verdict for row in rows} == {Verdict.REDUCED_PRECISION}, repr(Report(tuple(rows), {}))


def test_it_does_not_pass_unless_it_is_allowed() -> None:
    with ShortOperands(TF32):
        arguments = ["verify", "mlp", "--backend", "numpy,torch", "--dtype", "float32", "--precision", "default"]
        refused = CliRunner().invoke(cli, arguments)
        allowed = CliRunner().invoke(cli, [*arguments, "--allow", "reduced-precision"])
    assert refused.exit_code == 1
    assert "8 reduced-precision" in refused.output
    assert allowed.exit_code == 0, allowed.output


def test_precision_held_at_the_highest_leaves_the_candidates_own_code() -> None:
    with ShortOperands(TF32):
        rows = verified(network("mlp"), settings=Settings(dtypes=("float32",)))
    assert all("look in the candidate's code" in row.message for row in rows)


def test_a_candidate_that_agrees_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("no reduced precision was to be looked at")

    monkeypatch.setattr(testimony, "predictions", never)
    for name in ("mlp", "batchnorm_mlp", "lstm"):
        assert {row.verdict for row in verified(network(name))} == {Verdict.AGREE}


def one_tensor(gradients: Gradients) -> Gradients:
    return gradients | {"layers.1.weight": gradients["layers.1.weight"] * (1 + 1e-4)}


def one_element(gradients: Gradients) -> Gradients:
    changed = gradients["layers.1.weight"].copy()
    changed[2, 3] *= 1 + 1e-3
    return gradients | {"layers.1.weight": changed}


def all_by_a_thousandth(gradients: Gradients) -> Gradients:
    return {path: g * 1.001 for path, g in gradients.items()}


def doubled(gradients: Gradients) -> Gradients:
    return gradients | {"layers.1.weight": gradients["layers.1.weight"] * 2}


def slightly_off(gradients: Gradients) -> Gradients:
    return gradients | {"layers.1.weight": gradients["layers.1.weight"] * 1.01}


@pytest.mark.parametrize("change", [one_tensor, one_element, all_by_a_thousandth])
def test_a_fault_beside_an_exact_loss_is_none_of_the_arithmetic(change: Callable[[Gradients], Gradients]) -> None:
    problem = network("mlp")
    found = verdicts(verified(problem, faulty(problem, change)))
    assert found["layers.1.weight"] is Verdict.DISAGREE
    assert Verdict.REDUCED_PRECISION not in found.values()


@pytest.mark.parametrize("change", [doubled, slightly_off])
@pytest.mark.parametrize("operands", [TF32, BFLOAT16])
def test_a_fault_on_top_of_it_is_seen(operands: Operands, change: Callable[[Gradients], Gradients]) -> None:
    problem = network("mlp")
    with ShortOperands(operands):
        rows = verified(problem, faulty(problem, change))
        right = verified(problem, faulty(problem, lambda gradients: gradients))
    assert verdicts(rows)["layers.1.weight"] in FAULTS
    assert {row.verdict for row in right} == {Verdict.REDUCED_PRECISION}


def gelu_network(approximate: str, depth: int = 3) -> Problem:
    rng = np.random.default_rng(depth)
    params = [rng.standard_normal((16, 16)) / 4 for _ in range(depth)]

    def loss(params: Any, batch: Any) -> Any:
        hidden = batch["x"]
        for w in params:
            hidden = ops.gelu(ops.linear(hidden, w), approximate=approximate)
        return (hidden * batch["c"]).mean()

    return Problem("gelu", loss, params, {"x": rng.standard_normal((8, 16)), "c": rng.standard_normal((8, 16))})


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_another_formula_that_is_nearly_the_same_stays_a_different_loss(depth: int) -> None:
    """gelu by tanh is off by 1e-4, less than TF32 is: but not where TF32 would be."""
    rows = verified(gelu_network("none", depth), Candidate("torch", gelu_network("tanh", depth).graph))
    assert {row.verdict for row in rows} == {Verdict.DIFFERENT_LOSS}


@pytest.mark.parametrize("by", [1 + 1e-4, 1 + 1e-3])
def test_a_loss_scaled_by_a_little_stays_a_different_loss(by: float) -> None:
    problem = network("mlp")
    scaled = gw.Problem("scaled", lambda p, b: problem.loss(p, b) * by, problem.params, problem.batch)  # type: ignore[misc]
    rows = verified(problem, Candidate("torch", scaled.graph))
    assert {row.verdict for row in rows} == {Verdict.DIFFERENT_LOSS}


def test_a_gradient_of_none_or_of_another_shape_is_no_arithmetic() -> None:
    problem = network("mlp")

    def transposed(gradients: Gradients) -> Gradients:
        return gradients | {"layers.1.weight": gradients["layers.1.weight"].T}

    with ShortOperands(TF32):
        rows = verified(problem, faulty(problem, transposed))
    assert Verdict.REDUCED_PRECISION not in verdicts(rows).values()


def long_sums() -> Problem:
    """Weight gradients that are sums over 4,096 examples."""
    return network("mlp", batch=4096, features=32, width=32, depth=1)


def test_sums_of_products_in_bfloat16_are_told_by_name() -> None:
    settings = Settings(dtypes=("bfloat16",), precision="default", reference="differences")
    problem = long_sums()
    assert Verdict.DISAGREE not in verdicts(verified(problem, settings=settings)).values()
    with Accumulating():
        rows = verified(problem, settings=settings)
    found = verdicts(rows)
    assert found["layers.1.weight"] is Verdict.REDUCED_PRECISION, repr(Report(tuple(rows), {}))
    assert set(found.values()) <= {Verdict.REDUCED_PRECISION, Verdict.AGREE}
    assert "summed in bfloat16, one after another" in "".join(row.message for row in rows)


@pytest.mark.parametrize("by", [1.3, 2.0])
def test_a_factor_is_not_taken_for_sums_in_bfloat16(by: float) -> None:
    settings = Settings(dtypes=("bfloat16",), precision="default", reference="differences")
    problem = long_sums()
    one = verified(problem, faulty(problem, lambda g: g | {"layers.1.weight": g["layers.1.weight"] * by}), settings)
    every = verified(problem, faulty(problem, lambda g: {path: x * by for path, x in g.items()}), settings)
    assert verdicts(one)["layers.1.weight"] is Verdict.DISAGREE
    assert verdicts(every)["layers.1.weight"] is Verdict.DISAGREE


def test_sums_in_the_dtype_excuse_only_what_they_would_move() -> None:
    def moved(error: float, size: float) -> Moved:
        floor = TensorFloor(size, np.array(size))
        return Moved(np.array(1e3), np.array(error), TensorFloor(1.0, np.array(1.0)), Prediction(nothing, floor, floor))

    nothing, reduction = np.array(0.0), Reduction("sums", ("bfloat16",), sums=Sums(1 / 2))
    wrong = {"w": Judgement(Verdict.DISAGREE)}

    def found(*all_moved: Moved) -> Verdict:
        return recognised(wrong, lambda r: ([*all_moved[1:]], {"w": all_moved[0]}), [reduction], advice="")["w"].verdict

    assert found(moved(15, 30)) is Verdict.REDUCED_PRECISION
    assert found(moved(15, 30), moved(1, 3)) is Verdict.REDUCED_PRECISION
    assert found(moved(15, 30), moved(20, 3)) is Verdict.DISAGREE, "another is wrong, and does not grow"
    assert found(moved(15, 30), moved(1, 30)) is Verdict.DISAGREE, "another would have grown, and has not"
    assert found(moved(40, 30)) is Verdict.DISAGREE, "farther than such sums were seen to go"


@pytest.mark.parametrize("bits", [7, 10, 23])
def test_operands_round_as_the_formats_do(bits: int) -> None:
    x = np.concatenate([np.random.default_rng(0).standard_normal(1000) * 1e3, [0.0, -0.0, 1.0, 1 + 2.0**-8]])
    near, cut = Operands(bits).rounded(x), Operands(bits, nearest=False).rounded(x)
    assert np.all(np.abs(cut) <= np.abs(x))
    assert np.all(np.abs(near - x) <= 2.0 ** -(bits + 1) * np.abs(x))
    assert np.isinf(Operands(bits).rounded(np.array([np.inf]))).all()
    if bits == 7:
        assert np.array_equal(near, torch.from_numpy(x).to(torch.bfloat16).double().numpy())
    if bits == 23:
        assert np.array_equal(near, x.astype(np.float32).astype(np.float64))


@contextmanager
def torch_at_medium() -> Iterator[None]:
    held = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(held)


@contextmanager
def jax_at(precision: str) -> Iterator[None]:
    import jax

    with jax.default_matmul_precision(precision):
        yield


REAL: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "torch at medium": ("torch", torch_at_medium),
    "jax at bfloat16": ("jax", lambda: jax_at("bfloat16")),
    "jax at tensorfloat32": ("jax", lambda: jax_at("tensorfloat32")),
}


@pytest.mark.parametrize("case", REAL)
def test_on_hardware_that_reduces_precision(case: str) -> None:
    """oneDNN multiplies in bfloat16 on CPUs with AMX, XLA on none."""
    backend, reduced = REAL[case]
    problem = network("mlp", batch=64, features=64, width=64, depth=2)
    with reduced():
        rows = verify_problem(problem, {backend: Candidate(backend)}, SETTINGS)
    if {row.verdict for row in rows} == {Verdict.AGREE}:
        pytest.skip(f"{case}: this CPU multiplies in float32 all the same")
    assert {row.verdict for row in rows} == {Verdict.REDUCED_PRECISION}, repr(Report(tuple(rows), {}))
