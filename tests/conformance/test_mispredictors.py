"""Where simpler noise floors are known to be wrong by orders of magnitude: here right gradients stay within theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.evidence.reach import node_reach
from gradwitness.networks import network
from gradwitness.problem import Problem
from gradwitness.report import Report
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems
from tests.native import black_box, gradients_and_floors

DIRECT = ("numpy", "torch", "jax")
FRAMEWORKS = ("torch", "jax")
RNG = np.random.default_rng(0)


def contracted(value: Any, batch: Any) -> Any:
    """The inner product with random cotangents."""
    return (value * batch["cotangent"]).sum()


def gelu_near_its_tail() -> Problem:
    """Near -5, gelu cancels: its value is 1e-6, and so is what it leaves of an error in its argument."""
    x = -5 + 0.1 * RNG.standard_normal((64, 64))
    batch = {"cotangent": RNG.standard_normal(x.shape)}
    return Problem("gelu", lambda p, b: contracted(ops.gelu(p["x"]), b), {"x": x}, batch)


def a_large_batch() -> Problem:
    """Gradients that are sums over 65,536 examples."""
    return network("mlp", batch=65_536, depth=1)


def confident() -> Problem:
    """Logits by which the label leads by 15: the loss, and its gradient there, are differences of equals."""
    labels = RNG.integers(0, 50, 16)
    logits = RNG.standard_normal((16, 50))
    logits[np.arange(16), labels] += 15
    return Problem(
        "confident",
        lambda p, b: ops.cross_entropy(p["x"], b["labels"], reduction="mean"),
        {"x": logits},
        {"labels": labels},
    )


def offset_data() -> Problem:
    """A layer norm of data whose mean is 1,000 of its deviations."""
    x = 1000 + RNG.standard_normal((16, 96))
    params = {"x": x, "w": 1 + 0.3 * RNG.standard_normal(96), "b": 0.3 * RNG.standard_normal(96)}
    batch = {"cotangent": RNG.standard_normal(x.shape)}
    return Problem(
        "offset", lambda p, b: contracted(ops.layer_norm(p["x"], p["w"], p["b"], eps=1e-5), b), params, batch
    )


def causal_attention() -> Problem:
    """The first query sees one key: its gradient is 0, which fused kernels give as 2e-7."""
    query, key, value, cotangent = RNG.standard_normal((4, 2, 2, 17, 16))

    def loss(p: Any, b: Any) -> Any:
        return contracted(ops.scaled_dot_product_attention(p["q"], p["k"], p["v"], is_causal=True), b)

    return Problem("causal", loss, {"q": query, "k": key, "v": value}, {"cotangent": cotangent})


def a_long_sum() -> Problem:
    """Sums over 262,144 rows."""
    x = RNG.standard_normal((262_144, 4))

    def loss(p: Any, b: Any) -> Any:
        return ops.tanh(p["shift"] * b["x"]).sum(axis=0).sum() * (1 / len(x))

    return Problem("sum", loss, {"shift": np.array([[0.1, -0.2, 0.3, 0.4]])}, {"x": x})


def subnormal() -> Problem:
    """Gradients of 1e-39, below the smallest normal number of float32: XLA makes zeros of them."""
    x = RNG.standard_normal((8, 8))
    scale = 1e-39
    return Problem("subnormal", lambda p, b: (ops.tanh(p["x"]) * b["s"]).sum(), {"x": x}, {"s": np.full((8, 8), scale)})


def underflowing() -> Problem:
    """float16 ends at 6e-8: a mean over 512 squares of 1e-2 leaves cotangents of 4e-5, times weights of 1e-2."""
    draw = RNG.standard_normal
    params = {"w": 1e-2 * draw((32, 32)), "v": 1e-2 * draw((1, 32))}

    def loss(p: Any, b: Any) -> Any:
        hidden = ops.tanh(ops.linear(b["x"], p["w"], None))
        return ops.mse(ops.linear(hidden, p["v"], None), b["y"], reduction="mean", half=False)

    return Problem("underflow", loss, params, {"x": draw((512, 32)), "y": 1e-2 * draw((512, 1))})


def vast_relu(seed: int = 0) -> Problem:
    """1,054,724 parameters behind ReLUs, a few of them near their kinks."""
    return network("mlp", batch=32, features=256, width=1024, depth=2, activation="relu", seed=seed)


def all_but_one() -> Problem:
    """A sum less one of its terms: what comes back to that term is 0.7 - 3e4 + 3e4."""

    def loss(p: Any, b: Any) -> Any:
        e = ops.exp(p["x"])
        return 3e4 * (e.sum() - e[0]) + 0.7 * e[0]

    return Problem("but one", loss, {"x": RNG.standard_normal(6)}, {})


def one_bias_many_times() -> Problem:
    """120 cotangents added up, one after another."""

    def loss(p: Any, b: Any) -> Any:
        h = b["x"]
        for _ in range(120):
            h = h + p["b"]
        return (h * b["y"]).sum()

    draw = RNG.standard_normal
    return Problem("shared", loss, {"b": draw(3)}, {"x": draw((5, 3)), "y": np.abs(draw((5, 3)))})


CASES: dict[str, tuple[Callable[[], Problem], str, tuple[str, ...]]] = {
    "gelu near -5": (gelu_near_its_tail, "float32", DIRECT),
    "batch of 65,536": (a_large_batch, "float32", DIRECT),
    "cross entropy at a margin of 15": (confident, "float32", DIRECT),
    "layer norm of offset data": (offset_data, "float32", DIRECT),
    "causal attention": (causal_attention, "float32", DIRECT),
    "sum over 262,144 rows": (a_long_sum, "float32", DIRECT),
    "subnormal gradients": (subnormal, "float32", DIRECT),
    "underflow in float16": (underflowing, "float16", FRAMEWORKS),
    "a million parameters behind ReLU": (vast_relu, "float32", DIRECT),
    "all but one": (all_but_one, "float32", DIRECT),
    "all but one, in float64": (all_but_one, "float64", DIRECT),
    "a bias added 120 times": (one_bias_many_times, "float64", DIRECT),
    "a bias added 120 times, in float32": (one_bias_many_times, "float32", DIRECT),
}
BY_DIFFERENCES = {"batch of 65,536", "sum over 262,144 rows", "a million parameters behind ReLU"}  # large


def verified(case: str) -> Report:
    make, dtype, backends = CASES[case]
    reference = "differences" if case in BY_DIFFERENCES else "extended"
    return verify_problems([(make(), backends)], Settings(dtypes=(dtype,), reference=reference))


AT_THE_END_OF_THE_DTYPE = {"subnormal gradients": {"jax"}, "underflow in float16": {"torch", "jax"}}


@pytest.mark.parametrize("case", CASES)
def test_a_right_gradient_raises_no_alarm_and_a_wrong_one_would(case: str) -> None:
    report = verified(case)
    for row in report.rows:
        if row.backend in AT_THE_END_OF_THE_DTYPE.get(case, ()) and row.verdict is Verdict.INCONCLUSIVE:
            continue  # where the dtype ends, nothing is left to tell
        assert row.verdict is Verdict.AGREE, repr(report)
        assert row.limit is not None
        assert row.reference is not None
        assert row.limit < 0.1 * row.reference, "an error of a tenth would be seen"


@pytest.mark.parametrize("case", sorted(CASES.keys() - BY_DIFFERENCES))
def test_nor_does_it_as_a_black_box_in_torch(case: str) -> None:
    make, dtype, _ = CASES[case]
    problem = make()
    report = gw.verify(black_box(problem), problem.params, problem.batch, dtypes=dtype)
    for row in report.rows:
        at_the_end = "torch" in AT_THE_END_OF_THE_DTYPE.get(case, ()) and row.verdict is Verdict.INCONCLUSIVE
        assert row.verdict is Verdict.AGREE or at_the_end, repr(report)
    limits: dict[str | None, Any] = {row.parameter: row.limit for row in report.rows}

    def one_off(path: str, g: Any) -> Any:
        """One coordinate by twice the limit, in the dtype on trial alone, where no difference sees it."""
        g = g.contiguous().clone()
        if str(g.dtype) == f"torch.{dtype}":
            g.view(-1)[g.numel() // 2] += 2 * limits[path]
        return g

    wrong = gw.verify(black_box(problem, one_off), problem.params, problem.batch, dtypes=dtype)
    assert {row.verdict for row in wrong.rows} == {Verdict.DISAGREE}, repr(wrong)


@pytest.mark.parametrize("case", ["causal attention", "cross entropy at a margin of 15", "gelu near -5"])
def test_an_error_of_a_ten_thousandth_is_caught_in_a_black_box(case: str) -> None:
    make, dtype, _ = CASES[case]
    problem = make()
    faulty = problem.differentiated[0]
    wrong = black_box(problem, lambda path, g: g * 1.0001 if path == faulty else g)
    for row in gw.verify(wrong, problem.params, problem.batch, dtypes=dtype).rows:
        assert row.verdict is (Verdict.DISAGREE if row.parameter == faulty else Verdict.AGREE)


@pytest.mark.parametrize("case", sorted(BY_DIFFERENCES))
def test_large_gradients_in_torch_stay_within_the_floors_of_its_own_ops(case: str) -> None:
    make, dtype, _ = CASES[case]
    found, exact, floors = gradients_and_floors(make(), dtype)
    for path, floor in floors.items():
        error, reach = found[path] - exact[path], node_reach(floor)
        assert np.linalg.norm(error) <= 0.5 * reach.norm * floor.norm
        assert np.all(np.abs(error) <= 0.5 * reach.element * floor.elements)
