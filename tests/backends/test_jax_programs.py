"""What a jax candidate compiles, how often, and that it all goes with it."""

from __future__ import annotations

import gc
import linecache
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops, registry
from gradwitness.protocol import Prepared

RNG = np.random.default_rng(0)
PARAMS, BATCH = {"w": RNG.standard_normal((4, 3))}, {"x": RNG.standard_normal((8, 4))}


def loss(p: Any, b: Any) -> Any:
    return (jnp.tanh(b["x"] @ p["w"]) ** 2).mean()


def prepared(loss: Any, dtype: str = "float32", **how: Any) -> tuple[Prepared, gw.Problem]:
    problem = gw.Problem("own", None, PARAMS, BATCH).rounded(dtype)
    candidate = gw.Candidate("jax", loss, **how)
    return registry.backend("jax").prepare(candidate, problem, dtype=dtype, device="cpu"), problem


class Compiled(logging.Handler):
    """The names of the programs that jax compiles."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Finished XLA compilation of "):
            self.names.append(message.split()[4])


@contextmanager
def compiling() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("jax._src.dispatch"), Compiled()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler.names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


# What one verify of a loss of the user's own needs: in the dtype on trial, loss and gradient at the problem's batch and
# at one of another size, the forward and the backward; in float64, loss and gradient, the loss for many differences,
# and everything perturbed.
NEEDED = {"float32": 7, "float64": 6}


@pytest.mark.parametrize("dtype", NEEDED)
def test_each_program_is_compiled_once(dtype: str) -> None:
    """However many values, gradients and perturbed runs are asked for. The first may compile a few of jax's own."""
    gw.verify({"jax": loss}, PARAMS, BATCH, dtypes=dtype)
    with compiling() as names:
        assert gw.verify({"jax": loss}, PARAMS, BATCH, dtypes=dtype)
    assert 0 < len(names) <= NEEDED[dtype], names


def test_values_gradients_and_runs_compile_nothing_more() -> None:
    witness: Any
    witness, problem = prepared(loss, "float64")
    errors = gw.arithmetic.RoundingErrors.of("float32", registry.backend("jax").capabilities.arithmetic("float32"))

    def work() -> None:
        for _ in range(30):
            witness.value(problem.primals)
        witness.value_and_gradient(problem.primals)
        witness.fetch(witness.backward(witness.forward(witness.place(problem.primals))))
        list(witness.perturbed(problem.primals, errors, runs=3, seed=(1,)))

    work()
    with compiling() as names:
        work()
    assert names == []
    with compiling() as names:
        prepared(lambda p, b: loss(p, b), "float64")
    assert len(names) == 1, "the counter counts"


def test_programs_go_with_the_candidate() -> None:
    """A test suite verifies thousands of losses."""

    def kept() -> tuple[int, int]:
        gc.collect()
        equations = sum(type(found).__name__ == "JaxprEqn" for found in gc.get_objects())
        return len(jax.devices("cpu")[0].client.live_executables()), equations

    def verify() -> None:
        assert gw.verify({"jax": lambda p, b: loss(p, b)}, PARAMS, BATCH, dtypes="float32")

    verify()
    before = kept()
    for _ in range(3):
        verify()
    assert kept() <= before


def test_lines_of_a_lowered_graph_go_with_it() -> None:
    def lines() -> int:
        gc.collect()
        return sum(name.startswith("<gradwitness graph") for name in linecache.cache)

    def verify() -> None:
        def traced(p: Any, b: Any) -> Any:
            return ops.mean(ops.tanh(ops.matmul(b["x"], p["w"])))

        assert gw.verify(traced, PARAMS, BATCH, backends=["jax"], dtypes="float32")

    verify()
    before = lines()
    verify()
    assert lines() <= before


# The forward and the backward


@pytest.mark.parametrize("jit", [True, False])
def test_a_backward_gives_the_same_whatever_was_called_between(jit: bool) -> None:
    witness, problem = prepared(loss, options={"jit": jit})
    here, elsewhere = problem.primals, {"w": 2 * PARAMS["w"]}

    def gradient(between: Any = lambda: None) -> Any:
        tape = witness.forward(witness.place(here))
        between()
        return witness.fetch(witness.backward(tape))["w"]

    alone = gradient()
    smaller = problem.with_examples(3).leaves
    for between in (
        lambda: witness.forward(witness.place(elsewhere)),
        lambda: witness.backward(witness.forward(witness.place(elsewhere))),
        lambda: witness.value_and_gradient(here),
        lambda: witness.value_and_gradient(smaller),
        lambda: witness.value(elsewhere),
    ):
        assert np.array_equal(gradient(between), alone)


def test_a_tape_is_of_its_own_shapes() -> None:
    from gradwitness_jax.tape import passes

    forward, backward = passes(lambda p, b: loss(p, b), dtype=jnp.float32, jit=True)
    batches = [{"x": jnp.asarray(BATCH["x"][:n], "float32")} for n in (8, 5)]
    p, one = {"w": jnp.asarray(PARAMS["w"], "float32")}, jnp.float32(1)
    tapes = [forward(p, b) for b in batches]
    for tape, b in zip(tapes, batches, strict=True):
        np.testing.assert_allclose(backward(tape, one)["w"], jax.grad(loss)(p, b)["w"], rtol=1e-5)


def test_a_tape_without_jit_is_of_its_own_branch() -> None:
    def branching(p: Any, b: Any) -> Any:
        return loss(p, b) if p["w"].sum() > 0 else jnp.sin(p["w"]).sum()

    witness, _ = prepared(branching, options={"jit": False})
    place = witness.place
    one, other = ({"w": np.full((4, 3), c)} for c in (1.0, -1.0))
    tapes = [witness.forward(place(p)) for p in (one, other)]
    for tape, p in zip(tapes, (one, other), strict=True):
        expected = witness.value_and_gradient(p)[1]["w"]
        found = witness.fetch(witness.backward(tape))["w"]
        assert found is not None
        assert expected is not None
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_xla_simplifies_is_simplified_in_the_whole_alone() -> None:
    """log(exp(x)) is x, with a derivative of 1, where one program has both; and the two passes give what jax wrote."""
    witness, _ = prepared(lambda p, _: jnp.log(jnp.exp(p["w"])).sum())
    large = {"w": np.full((4, 3), 100.0)}  # exp overflows in float32
    whole = witness.value_and_gradient(large)[1]["w"]
    once, again = (witness.fetch(witness.backward(witness.forward(witness.place(large))))["w"] for _ in range(2))
    assert np.array_equal(whole, np.ones((4, 3)))  # type: ignore[arg-type]
    assert np.all(np.isnan(once))  # type: ignore[arg-type]
    assert np.array_equal(once, again, equal_nan=True)  # type: ignore[arg-type]
