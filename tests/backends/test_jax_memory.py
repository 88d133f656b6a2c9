"""A compiled program that calls nothing outside gives the same whatever is called between; any other is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.problem import Problem

RNG = np.random.default_rng(0)
PARAMS, BATCH = {"w": RNG.standard_normal((4, 3))}, {"x": RNG.standard_normal((8, 4))}
DRAWN = np.random.default_rng(1)
SAVED: list[Any] = [None]


def plain(p: Any, b: Any) -> Any:
    return (jax.nn.relu(b["x"] @ p["w"]) ** 2).mean()


def drawing(p: Any, b: Any) -> Any:
    """Draws as it is traced, and never again."""
    return (DRAWN.standard_normal() * b["x"] @ p["w"]).sum() ** 2


def weighing(p: Any, b: Any) -> Any:
    """The same, of an array, which is a constant of the program."""
    return ((b["x"] @ p["w"] * DRAWN.standard_normal((8, 3))) ** 2).mean()


def inside(p: Any, b: Any) -> Any:
    """The same in a program within."""
    return jax.jit(lambda w: ((b["x"] @ w * DRAWN.standard_normal((8, 3))) ** 2).mean())(p["w"])


KEY = jax.random.key(0)


def keyed(p: Any, b: Any) -> Any:
    """Closes over a key, which is no array that NumPy reads."""
    return ((b["x"] @ p["w"] * jax.random.bernoulli(KEY, 0.5, (8, 3))) ** 2).mean()


@jax.custom_vjp
def square(x: Any) -> Any:
    return x**2


def remember(x: Any) -> Any:
    SAVED[0] = np.array(x)
    return np.array(x) ** 2


def recall(g: Any) -> Any:
    return 2 * np.array(g) * SAVED[0]


square.defvjp(
    lambda x: (jax.pure_callback(remember, jax.ShapeDtypeStruct(x.shape, x.dtype), x), ()),
    lambda _, g: (jax.pure_callback(recall, jax.ShapeDtypeStruct(g.shape, g.dtype), g),),
)


def remembering(p: Any, b: Any) -> Any:
    """Its backward takes what the last forward has saved on the host, whichever that was."""
    return square(b["x"] @ p["w"]).mean()


def prepared(loss: Callable[..., Any], **options: Any) -> Any:
    candidate = gw.Candidate("jax", loss, options=options)
    return registry.backend("jax").prepare(candidate, Problem("p", None, PARAMS, BATCH), dtype="float64", device="cpu")


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        (plain, {}, True),
        (plain, {"jit": False}, None),
        (keyed, {}, True),
        (inside, {}, False),
        (drawing, {}, False),
        (weighing, {}, False),
        (remembering, {}, False),
    ],
)
def test_which_programs_can_remember_nothing(loss: Callable[..., Any], options: Any, expected: bool | None) -> None:
    assert prepared(loss, **options).is_forgetful(PARAMS) is expected


@pytest.mark.parametrize("loss", [drawing, weighing, inside])
def test_what_its_tracing_draws_is_found_out(loss: Callable[..., Any]) -> None:
    (row,) = gw.verify({"jax": loss}, PARAMS, BATCH).rows
    assert str(row.verdict) == "nondeterministic"
    assert row.message.startswith("compiled anew, the same call gave two losses")
    assert row.message.endswith("draw from a key in batch")


def test_a_loss_that_closes_over_a_key_agrees() -> None:
    assert gw.verify({"jax": keyed}, PARAMS, BATCH)


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_nothing_is_compiled_anew_where_nothing_is_compiled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("compiled anew")

    monkeypatch.setattr("gradwitness.run.cell.compiled_anew", never)
    candidate = gw.Candidate(backend, lambda p, b: (p["w"] ** 2).sum(), gradient=lambda p, b: {"w": 2 * p["w"]})
    assert gw.verify(candidate, PARAMS, BATCH, timeout=120)


def test_those_that_cannot_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("tried in another order")

    monkeypatch.setattr("gradwitness.run.cell.impure", never)
    assert gw.verify({"jax": plain}, PARAMS, BATCH)
    assert "tried in another order" in repr(gw.verify({"jax": remembering}, PARAMS, BATCH))


def test_the_same_from_a_subprocess() -> None:
    assert gw.verify({"jax": plain}, PARAMS, BATCH, timeout=120)
