"""The floors that perturbed runs give losses in jax's arrays, and the verdicts with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradwitness as gw
from gradwitness import registry
from gradwitness.arithmetic import RoundingErrors
from gradwitness.errors import UnsupportedError
from gradwitness.evidence.noise_floor import noise_floor, tensor_floor
from gradwitness.evidence.perturbed_runs import PerturbedRuns
from gradwitness.networks import network
from gradwitness.protocol import Interpreter, Perturbing
from tests.backends.jax_rounding import BATCH, FLOAT32, PARAMS, RUNS, Function, loss, moves, prepared

RNG = np.random.default_rng(0)


def test_a_run_gives_the_loss_and_each_gradient() -> None:
    witness, problem = prepared(loss, PARAMS, BATCH)
    runs = list(witness.perturbed(problem.primals, FLOAT32, runs=3, seed=(1, 2)))
    again = list(witness.perturbed(problem.primals, FLOAT32, runs=3, seed=(1, 2)))
    assert [value for value, _ in runs] == [value for value, _ in again]
    assert len({value for value, _ in runs}) == 3
    assert all(g is not None and g.shape == PARAMS[path].shape for _, found in runs for path, g in found.items())
    ((value, nothing),) = witness.perturbed(problem.primals, FLOAT32, runs=1, seed=(1, 2), gradients=False)
    assert (value, nothing) == (runs[0][0], {})


def test_a_gradient_by_hand_is_perturbed_as_it_is_written() -> None:
    autograd, problem = prepared(loss, PARAMS, BATCH)
    by_hand, _ = prepared(loss, PARAMS, BATCH, gradient=jax.grad(loss))
    left_out, _ = prepared(loss, PARAMS, BATCH, gradient=lambda p, b: {"w": jax.grad(loss)(p, b)["w"]})

    def spread(witness: Perturbing, path: str) -> float:
        runs = witness.perturbed(problem.primals, FLOAT32, runs=32, seed=(0,))
        return float(np.linalg.norm(np.std(np.array([found[path] for _, found in runs]), axis=0)))

    assert 0.7 < spread(by_hand, "w") / spread(autograd, "w") < 1.4
    assert next(iter(left_out.perturbed(problem.primals, FLOAT32, runs=1, seed=(0,))))[1]["b"] is None
    in_numpy, _ = prepared(loss, PARAMS, BATCH, gradient=lambda p, b: {"w": np.asarray(p["w"])})
    with pytest.raises(UnsupportedError, match="no jaxpr"):
        list(in_numpy.perturbed(problem.primals, FLOAT32, runs=1, seed=(0,)))


def test_it_is_traced_once_for_all_dtypes() -> None:
    calls: list[None] = []

    def counted(p: Any, b: Any) -> Any:
        calls.append(None)
        return loss(p, b)

    witness, problem = prepared(counted, PARAMS, BATCH)
    for dtype in ("float32", "bfloat16", "float64"):
        errors = RoundingErrors.of(dtype, registry.backend("jax").capabilities.arithmetic(dtype))
        list(witness.perturbed(problem.primals, errors, runs=2, seed=(0,)))
    before = len(calls)
    list(witness.perturbed(problem.primals, FLOAT32, runs=2, seed=(0,), gradients=False))
    assert len(calls) == before <= 2, "once to compile it as it is, and once perturbed"


def test_what_belongs_to_the_caller_is_as_it_was_while_runs_are_drawn() -> None:
    def state() -> tuple[Any, ...]:
        config = jax.config
        return (
            config.jax_enable_x64,  # type: ignore[attr-defined]  # added at run time
            config.jax_default_prng_impl,  # type: ignore[attr-defined]
            jnp.ones(()).dtype,
            np.random.get_state()[1].tolist(),  # type: ignore[index]  # the caller's
        )

    before = state()
    witness, problem = prepared(loss, PARAMS, BATCH)
    for _ in witness.perturbed(problem.primals, FLOAT32, runs=2, seed=(0,)):
        assert state() == before


# Against the floor of the same network traced

ZOO = ("mlp", "layernorm_mlp", "convnet", "gru", "transformer")


@pytest.mark.parametrize("name", ZOO)
def test_it_is_the_floor_of_the_same_network_traced(interpreter: Interpreter, name: str) -> None:
    backend = registry.backend("jax")
    wide = backend.prepare(gw.Candidate("jax"), network(name), dtype="float64", device="cpu")
    assert isinstance(wide, Perturbing)
    for dtype in ("float32", "bfloat16", "float64"):
        problem, arithmetic = network(name).rounded(dtype), backend.capabilities.arithmetic(dtype)
        graph = problem.graph.decomposed()
        runs = PerturbedRuns(interpreter, graph, problem.leaves, dtype, [0], arithmetic)
        traced = noise_floor(runs, problem.differentiated)
        errors = RoundingErrors.of(dtype, arithmetic)
        gradients = wide.value_and_gradient(problem.leaves)[1]
        own = [found for _, found in wide.perturbed(problem.leaves, errors, runs=RUNS, seed=(0, 1))]
        ratios = []
        for path, floor in traced.tensors.items():
            moved = np.array([run[path] for run in own]) - np.asarray(gradients[path])
            ratios.append(tensor_floor(moved / errors.amplification).norm / floor.norm)
        outside = sum(not 0.5 < ratio < 2 for ratio in ratios)
        assert outside <= max(1, 0.1 * len(ratios)), (dtype, ratios)
        assert all(0.3 < ratio < 3 for ratio in ratios), (dtype, ratios)


# One number added to many

COPIES: dict[str, Function] = {  # of c, of shape (), to x
    "add": lambda x, c: x + c,
    "sub": lambda x, c: c - x,
    "add_any": lambda x, c: jax.vjp(lambda x: (x, x.sum()), x)[1]((x, c))[0],
    "of a row": lambda x, c: (x.reshape(-1, 4) + jnp.stack([c, 2 * c, 3 * c, 4 * c])).ravel(),
    "in a scan": lambda x, c: lax.scan(lambda carry, x: (carry, x + c), c, x[None])[1][0],
}


def together(moved: Any) -> float:
    """The spread of the sum of errors, in that of as many independent ones."""
    return float(np.sqrt(np.mean(moved.sum(axis=1) ** 2) / np.mean(np.square(moved).sum(axis=1))))


@pytest.mark.parametrize("form", COPIES)
def test_one_number_added_to_many_is_rounded_alike(form: str) -> None:
    """float32 loses the same digits of it in each sum of a binade: these errors do not cancel."""
    function, x, c = COPIES[form], RNG.standard_normal(80_000).astype(np.float32), np.float32(1.1e-5)
    with jax.enable_x64(True):
        wide = x.astype(float), jnp.asarray(float(c))
        error = np.asarray(function(x, jnp.asarray(c)), float) - np.asarray(function(*wide))
        found = moves(function, *wide) * 2.0**-24
    assert together(error[None]) > 20
    assert together(found) > 20
    assert abs(error.sum()) < 3 * np.sqrt(np.mean(found.sum(axis=1) ** 2))


@pytest.mark.parametrize(("count", "c"), [(1000, 1e-5), (80_000, 100.0)])
def test_few_copies_and_larger_ones_are_rounded_each_for_itself(count: int, c: float) -> None:
    assert 0.6 < together(moves(lambda x: x + c, RNG.standard_normal(count))) < 1.5


# Verdicts


def verdicts(report: gw.Report) -> dict[str, str]:
    return {str(row.parameter): str(row.verdict) for row in report.rows}


@jax.custom_vjp
def scaled(x: Any) -> Any:
    return 2 * x


scaled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@jax.custom_vjp
def misscaled(x: Any) -> Any:
    return 2 * x


misscaled.defvjp(lambda x: (2 * x, None), lambda _, g: (2.0001 * g,))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_custom_vjp_is_run_by_its_own_rule_and_a_wrong_one_is_at_fault(dtype: str) -> None:
    right = gw.verify({"jax": lambda p, b: loss({**p, "w": scaled(p["w"])}, b)}, PARAMS, BATCH, dtypes=dtype)
    assert right, repr(right)
    wrong = gw.verify({"jax": lambda p, b: loss({**p, "w": misscaled(p["w"])}, b)}, PARAMS, BATCH, dtypes=dtype)
    assert verdicts(wrong) == {"w": "disagree", "b": "agree"}


def narrow(x: Any) -> bool:
    return bool(x.dtype == jnp.float32)


def everywhere(g: Any) -> Any:
    return g * 1.0001


def at_one(g: Any) -> Any:
    """One coordinate moved by a thousandth of the largest."""
    return g.at[(1,) * g.ndim].add(1e-3 * jnp.max(jnp.abs(g)))


@pytest.mark.parametrize("fault", [everywhere, at_one])
def test_a_fault_of_the_narrow_dtype_alone_is_seen(fault: Function) -> None:
    """In float64 all is well, so nothing but the floor tells it from rounding."""

    def gradient(p: Any, b: Any) -> Any:
        found = jax.grad(loss)(p, b)
        return {**found, "w": fault(found["w"])} if narrow(p["w"]) else found

    report = gw.verify(gw.Candidate("jax", loss, gradient=gradient), PARAMS, BATCH, dtypes="float32")
    assert verdicts(report) == {"w": "disagree", "b": "agree"}, repr(report)
    assert "right in float64" in repr(report)


def test_an_error_of_twice_the_printed_limit_is_seen() -> None:
    (limit,) = (
        row.limit for row in gw.verify({"jax": loss}, PARAMS, BATCH, dtypes="float32").rows if row.parameter == "w"
    )
    assert limit is not None

    def gradient(p: Any, b: Any) -> Any:
        found = jax.grad(loss)(p, b)
        return {**found, "w": found["w"].at[1, 1].add(2 * limit)} if narrow(p["w"]) else found

    report = gw.verify(gw.Candidate("jax", loss, gradient=gradient), PARAMS, BATCH, dtypes="float32")
    assert verdicts(report) == {"w": "disagree", "b": "agree"}, repr(report)


# Where simpler floors are wrong by orders of magnitude (tests/conformance/test_mispredictors.py), in jax's own arrays


def contracted(value: Any, b: Any) -> Any:
    return (value * b["cotangent"]).sum()


def gelu_near_its_tail() -> tuple[Function, Any, Any]:
    x = -5 + 0.1 * RNG.standard_normal((64, 64))
    batch = {"cotangent": RNG.standard_normal(x.shape)}
    return lambda p, b: contracted(jax.nn.gelu(p["x"], approximate=False), b), {"x": x}, batch


def confident() -> tuple[Function, Any, Any]:
    labels, logits = RNG.integers(0, 50, 16), RNG.standard_normal((16, 50))
    logits[np.arange(16), labels] += 15

    def cross_entropy(p: Any, b: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(p["x"]), b["labels"][:, None], axis=1).mean()

    return cross_entropy, {"x": logits}, {"labels": labels}


def offset_data() -> tuple[Function, Any, Any]:
    x = 1000 + RNG.standard_normal((16, 96))

    def layer_norm(p: Any, b: Any) -> Any:
        centred = p["x"] - p["x"].mean(-1, keepdims=True)
        return contracted(centred * lax.rsqrt(p["x"].var(-1, keepdims=True) + 1e-5) * p["w"], b)

    return layer_norm, {"x": x, "w": 1 + 0.3 * RNG.standard_normal(96)}, {"cotangent": RNG.standard_normal(x.shape)}


def causal_attention() -> tuple[Function, Any, Any]:
    query, key, value, cotangent = RNG.standard_normal((4, 2, 17, 2, 16))

    def attention(p: Any, b: Any) -> Any:
        scores = jnp.einsum("bthd,bshd->bhts", p["q"], p["k"]) / 4
        weights = jax.nn.softmax(jnp.where(jnp.tri(17, dtype=bool), scores, -jnp.inf))
        return contracted(jnp.einsum("bhts,bshd->bthd", weights, p["v"]), b)

    return attention, {"q": query, "k": key, "v": value}, {"cotangent": cotangent}


def a_long_sum() -> tuple[Function, Any, Any]:
    x = RNG.standard_normal((262_144, 4))
    params = {"shift": np.array([[0.1, -0.2, 0.3, 0.4]])}
    return lambda p, b: jnp.tanh(p["shift"] * b["x"]).sum(axis=0).sum() * (1 / len(x)), params, {"x": x}


def a_long_variance() -> tuple[Function, Any, Any]:
    x = 1000 + RNG.standard_normal(300_000)
    return lambda p, b: (b["x"] * p["w"]).var(), {"w": np.array(0.5)}, {"x": x}


def subnormal() -> tuple[Function, Any, Any]:
    x = RNG.standard_normal((8, 8))
    return lambda p, b: (jnp.tanh(p["x"]) * b["s"]).sum(), {"x": x}, {"s": np.full((8, 8), 1e-39)}


def underflowing() -> tuple[Function, Any, Any]:
    draw = RNG.standard_normal
    params = {"w": 1e-2 * draw((32, 32)), "v": 1e-2 * draw((1, 32))}

    def squares(p: Any, b: Any) -> Any:
        return jnp.mean((jnp.tanh(b["x"] @ p["w"].T) @ p["v"].T - b["y"]) ** 2)

    return squares, params, {"x": draw((512, 32)), "y": 1e-2 * draw((512, 1))}


CASES: dict[str, tuple[Callable[[], tuple[Function, Any, Any]], str, bool]] = {  # whether anything can be told there
    "gelu near -5": (gelu_near_its_tail, "float32", True),
    "cross entropy at a margin of 15": (confident, "float32", False),
    "layer norm of offset data": (offset_data, "float32", True),
    "causal attention": (causal_attention, "float32", True),
    "sum over 262,144 rows": (a_long_sum, "float32", True),
    "sum over 262,144 rows in 16 bits": (a_long_sum, "bfloat16", False),
    "variance of 300,000 numbers beside a mean": (a_long_variance, "float32", True),
    "subnormal gradients": (subnormal, "float32", False),
    "underflow in float16": (underflowing, "float16", False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_right_gradient_raises_no_alarm(case: str) -> None:
    make, dtype, decided = CASES[case]
    report = gw.verify({"jax": make()[0]}, *make()[1:], dtypes=dtype)
    for row in report.rows:
        assert str(row.verdict) in ({"agree"} if decided else {"agree", "inconclusive"}), repr(report)
        assert row.error is not None
        assert row.floor is not None
        assert row.error < 3 * row.floor
