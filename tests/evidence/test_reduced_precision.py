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
from gradwitness.evidence import from_graph
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.prediction import Prediction
from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Report, Row
from gradwitness.run.problems import verify_problem
from gradwitness.settings import Settings
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.by_arithmetic import Moved, recognised
from tests.evidence.reduced import (
    BFLOAT16,
    TF32,
    Accumulating,
    ShortOperands,
    by_onednn,
    convolutions,
    matrices,
)

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
@pytest.mark.parametrize("name", ["article", "mlp", "convnet", "deep_sigmoid", "gru"])
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


# by their sizes: what each has that the others have not
LARGE: Mapping[str, Callable[[], Problem]] = {
    "4 outputs, so the last layer is reduced forward and exact backward": lambda: network(
        "mlp", batch=64, features=64, width=64, depth=2
    ),
    "16 examples, so no weight's gradient is reduced": lambda: network("mlp", batch=16, features=64, width=64, depth=2),
    "one output": lambda: network("mlp", batch=64, features=64, width=64, depth=2, outputs=1),
    "one layer of three": lambda: network("mlp", batch=24, features=12, width=40, depth=3, outputs=10),
    "deep": lambda: network("deep_sigmoid", batch=32, width=48, depth=4),
    "convolutions": lambda: images(),
    "batches of matrices": lambda: weighted(batched=True),
    "vectors": lambda: weighted(batched=False),
}


def images() -> Problem:
    """A convolution, and one product of matrices that is large."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal((4, 1, 3, 3)) / 3, "w": rng.standard_normal((20, 144)) / 12}

    def loss(p: Any, b: Any) -> Any:
        hidden = ops.tanh(ops.conv2d(b["x"], p["kernel"])).reshape(32, 144)
        return ops.tanh(ops.linear(hidden, p["w"])).mean()

    return Problem("images", loss, params, {"x": rng.standard_normal((32, 1, 8, 8))})


def weighted(*, batched: bool) -> Problem:
    """Products other than those of a layer: three axes by three, or by two, stored by rows; a matrix by a vector."""
    rng = np.random.default_rng(0)
    v = rng.standard_normal((8, 24, 20) if batched else 96) / 5
    params = {"w": rng.standard_normal((40, 24)) / 6, "v": v}

    def loss(p: Any, b: Any) -> Any:
        hidden = ops.tanh(b["x"] @ p["w"])
        return ops.tanh(hidden @ p["v"]).mean() if batched else ops.tanh(ops.tanh(b["y"] @ p["v"]) @ hidden[0]).mean()

    batch = {"x": rng.standard_normal((8, 16, 40))}
    return Problem("weighted", loss, params, batch if batched else batch | {"y": rng.standard_normal((16, 96))})


@pytest.mark.parametrize("name", LARGE)
def test_large_products_alone_are_told_by_name(name: str) -> None:
    """On a CPU with AMX torch reduces these, and leaves the others in float32, forward and backward."""
    with ShortOperands(BFLOAT16, by_onednn):
        rows = verified(LARGE[name]())
    found = {row.verdict for row in rows}
    assert Verdict.REDUCED_PRECISION in found, repr(Report(tuple(rows), {}))
    assert found <= {Verdict.REDUCED_PRECISION, Verdict.AGREE}, repr(Report(tuple(rows), {}))
    told = [row.message for row in rows if row.verdict is Verdict.REDUCED_PRECISION]
    assert all("as large matrix products of bfloat16 operands (7 bits) would be: " in message for message in told)


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_large_products_around_attention(kernel: SDPBackend) -> None:
    """By torch's own products, of factors scaled first, or by one kernel in float32."""
    settings = Settings(dtypes=("float32",), precision="default", reference="differences")
    problem = network("transformer", batch=2, blocks=1, width=24, heads=2, depth=16, hidden=32, time=16)
    with ShortOperands(BFLOAT16, by_onednn), sdpa_kernel(kernel):
        rows = verified(problem, settings=settings)
    assert {row.verdict for row in rows} == {Verdict.REDUCED_PRECISION}, repr(Report(tuple(rows), {}))


def test_one_gradient_alone_may_be_reduced() -> None:
    """The only product of this network that is large enough is that of the output's weight: all else agrees."""
    with ShortOperands(BFLOAT16, by_onednn):
        found = verdicts(verified(network("gru")))
    reduced = [path for path, verdict in found.items() if verdict is Verdict.REDUCED_PRECISION]
    assert reduced == ["output.weight"]
    assert set(found.values()) == {Verdict.REDUCED_PRECISION, Verdict.AGREE}


@pytest.mark.parametrize("operands", [TF32, BFLOAT16, Operands(10, nearest=False)])
@pytest.mark.parametrize(
    ("chosen", "says"),
    [(matrices, "matrix products, and no convolutions,"), (convolutions, "convolutions, and no matrix products,")],
)
def test_products_of_one_kind_alone_are_told_by_name(
    chosen: Callable[..., bool], says: str, operands: Operands
) -> None:
    """torch has a setting for each: at its default, tensor cores take convolutions in TF32 and matrices in float32."""
    with ShortOperands(operands, chosen):
        rows = verified(network("convnet"))
    assert {row.verdict for row in rows} == {Verdict.REDUCED_PRECISION}, repr(Report(tuple(rows), {}))
    assert all(f"as {says} of " in row.message for row in rows)


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

    monkeypatch.setattr(from_graph, "predictions", never)
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


ON_TOP_OF: Mapping[str, tuple[Callable[[], ShortOperands], Callable[[], Problem]]] = {
    "TF32": (lambda: ShortOperands(TF32), lambda: network("mlp")),
    "bfloat16": (lambda: ShortOperands(BFLOAT16), lambda: network("mlp")),
    "AMX": (lambda: ShortOperands(BFLOAT16, by_onednn), LARGE["one layer of three"]),
}


@pytest.mark.parametrize("change", [doubled, slightly_off])
@pytest.mark.parametrize("name", ON_TOP_OF)
def test_a_fault_on_top_of_it_is_seen(name: str, change: Callable[[Gradients], Gradients]) -> None:
    library, network_of = ON_TOP_OF[name]
    problem = network_of()
    with library():
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
    scaled = gw.Problem("scaled", lambda p, b: problem.loss(p, b) * by, problem.params, problem.batch)  # type: ignore[misc, operator]
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
def torch_at(precision: str) -> Iterator[None]:
    held = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
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
    "torch at high": ("torch", lambda: torch_at("high")),
    "torch at medium": ("torch", lambda: torch_at("medium")),
    "torch on an emulated AMX": ("torch", lambda: ShortOperands(BFLOAT16, by_onednn)),
    "torch on emulated tensor cores": ("torch", lambda: ShortOperands(TF32)),
    "jax at bfloat16": ("jax", lambda: jax_at("bfloat16")),
    "jax at tensorfloat32": ("jax", lambda: jax_at("tensorfloat32")),
}


def multiplies_short(backend: str, rows: int, inner: int, columns: int) -> bool:
    """Whether this machine, as it is set now, gives such a product of float32 fewer bits than float32 has."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    if backend == "torch":
        found = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    else:
        import jax.numpy as jnp

        found = np.asarray(jnp.matmul(a, b))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return bool(np.linalg.norm(found - exact) > 2.0**-16 * np.linalg.norm(exact))  # TF32 leaves 2^-12, float32 2^-23


SIZES: Mapping[str, tuple[dict[str, int], tuple[int, int, int]]] = {  # of a network, and of its largest product
    "large": ({"batch": 64, "features": 64, "width": 64, "depth": 2}, (64, 64, 64)),
    "small": ({"batch": 5, "features": 7, "width": 20, "depth": 2}, (5, 20, 15)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", REAL)
def test_the_verdict_follows_from_what_this_hardware_does(case: str, size: str) -> None:
    """oneDNN multiplies in bfloat16 on CPUs with AMX, and large products only; XLA on none; whichever this is."""
    backend, reduced = REAL[case]
    sizes, largest = SIZES[size]
    with reduced():
        is_short = multiplies_short(backend, *largest)
        rows = verify_problem(network("mlp", **sizes), {backend: Candidate(backend)}, SETTINGS)
    expected = Verdict.REDUCED_PRECISION if is_short else Verdict.AGREE
    assert {row.verdict for row in rows} == {expected}, repr(Report(tuple(rows), {}))


def test_what_hardware_does_is_measured() -> None:
    with ShortOperands(BFLOAT16, by_onednn):
        assert [multiplies_short("torch", *largest) for _, largest in SIZES.values()] == [True, False]
    with torch_at("highest"):
        assert not any(multiplies_short("torch", *largest) for _, largest in SIZES.values())
