"""A loss in jax's arrays, perturbed as its candidate is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradwitness as gw
from gradwitness import registry
from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness.protocol import Perturbing
from gradwitness_jax.rounding import Perturbed

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 6, 5))
ONCE = Arithmetic()
RUNS = 64

Function = Callable[..., Any]


def moves(function: Function, *arguments: Any, dtype: str = "float32", arithmetic: Arithmetic = ONCE) -> Any:
    """How far each run moves each element, shape (RUNS, *shape), in units of roundoff."""
    errors, rng = RoundingErrors.of(dtype, arithmetic), np.random.default_rng(1)
    with jax.enable_x64(True):
        perturbed = Perturbed(function, *arguments)
        runs = [np.asarray(perturbed(errors, rng.standard_normal(perturbed.count), *arguments)) for _ in range(RUNS)]
        exact = np.asarray(function(*arguments))
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(exact), 0.0, np.array(runs) - exact) / errors.roundoff


def prepared(loss: Function | None, params: Any, batch: Any, **how: Any) -> tuple[Perturbing, gw.Problem]:
    problem = gw.Problem("own", None, params, batch)
    found = registry.backend("jax").prepare(gw.Candidate("jax", loss, **how), problem, dtype="float64", device="cpu")
    assert isinstance(found, Perturbing)
    return found, problem


PARAMS = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(4)}
BATCH = {"x": RNG.standard_normal((8, 3)), "y": RNG.standard_normal((8, 4))}
FLOAT32 = RoundingErrors.of("float32", ONCE)


def loss(p: Any, b: Any) -> Any:
    return ((jnp.tanh(b["x"] @ p["w"].T + p["b"]) - b["y"]) ** 2).mean()
