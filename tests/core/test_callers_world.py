"""Nothing of the caller's changes: whatever is verified, and whatever goes wrong in it."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
import gradwitness_torch
from gradwitness import ops
from gradwitness.networks import network

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}
BATCH = {"x": RNG.standard_normal((8, 4)), "y": RNG.standard_normal((8, 3))}
GIVEN = torch.tensor(PARAMS["w"], requires_grad=True)
GIVEN.grad = torch.ones_like(GIVEN)
CLOSED_OVER = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
MODULE = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.0)).double()
WEIGHT = MODULE.get_parameter("0.weight")
WEIGHT.grad = torch.ones_like(WEIGHT)
MODULE.get_parameter("0.bias").requires_grad_(False)
INDUCTOR = "TORCHINDUCTOR"  # torch.compile's own, by which its parts find each other


def of_jax(name: str) -> Any:
    return getattr(jax.config, name)


def world() -> dict[str, Any]:
    """All that a call might leave behind, by name, as values that can be compared."""
    arrays = {**PARAMS, **BATCH}
    tensors = {**dict(MODULE.named_parameters()), **dict(MODULE.named_buffers()), "w": GIVEN, "scale": CLOSED_OVER}
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's determinism": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's random state": torch.get_rng_state().tolist(),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "jax's x64": of_jax("jax_enable_x64"),
        "jax's matmul precision": of_jax("jax_default_matmul_precision"),
        "jax's debugging": of_jax("jax_debug_nans"),
        "numpy's random state": str(np.random.get_state()),
        "numpy's errors": np.geterr(),
        "numpy's printing": str(np.get_printoptions()),
        "random's state": random.getstate(),
        "environment variables": {n: v for n, v in os.environ.items() if INDUCTOR not in n},
        "working directory": Path.cwd(),
        "warnings filters": list(warnings.filters),
        "arrays": {name: (id(a), a.tobytes(), a.flags.writeable) for name, a in arrays.items()},
        "tensors": {
            name: (id(t), t.detach().numpy().tobytes(), t._version, t.requires_grad) for name, t in tensors.items()
        },
        "gradients": {name: None if t.grad is None else t.grad.tolist() for name, t in tensors.items()},
        "training": [module.training for module in MODULE.modules()],
    }


def changed_by(work: Callable[[], Any]) -> list[str]:
    before = world()
    work()
    after = world()
    return [name for name in before if before[name] != after[name]]


def torch_loss(p: Any, d: Any) -> Any:
    return ((torch.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2).mean()


def jax_loss(p: Any, d: Any) -> Any:
    return ((jnp.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2).mean()


def numpy_loss(p: Any, d: Any) -> Any:
    return ((np.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2).mean()


def numpy_gradient(p: Any, d: Any) -> Any:
    hidden = np.tanh(d["x"] @ p["w"] + p["b"])
    g = 2 * (hidden - d["y"]) / hidden.size * (1 - hidden**2)
    return {"w": d["x"].T @ g, "b": g.sum(axis=0)}


def traced_loss(p: Any, d: Any) -> Any:
    return ops.mean((ops.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2)


def raising(p: Any, d: Any) -> Any:
    raise RuntimeError("out of luck")


def wrong(p: Any, d: Any) -> Any:
    return {path: 2 * g for path, g in numpy_gradient(p, d).items()}


ALL: dict[str, Any] = {
    "torch": torch_loss,
    "jax": jax_loss,
    "mine": gw.Candidate("numpy", numpy_loss, gradient=numpy_gradient),
    "wrong": gw.Candidate("numpy", numpy_loss, gradient=wrong),
    "raising": gw.Candidate("torch", raising),
    "closed": gw.Candidate("torch", lambda p, d: torch_loss(p, d) * CLOSED_OVER / 2),
}


def of_black_boxes(**options: Any) -> gw.Report:
    with pytest.warns(UserWarning, match="CLOSED_OVER"):
        return gw.verify(ALL, {**PARAMS, "w": GIVEN}, BATCH, dtypes=("float64", "float32"), **options)


def of_a_traced_loss() -> gw.Report:
    return gw.verify(traced_loss, PARAMS, BATCH, backends="numpy, torch, jax", dtypes=("float64", "float32"))


def of_a_network() -> gw.Report:
    return gw.verify(network("convnet"), backends="torch, jax")


def of_a_module() -> gw.Report:
    loss, params = gradwitness_torch.from_module(MODULE, lambda m, d: ((m(d["x"]) - d["y"]) ** 2).mean())
    return gw.verify({"torch": loss}, params, BATCH)


def compiled() -> gw.Report:
    return gw.verify({"torch.compile": torch_loss, "torch": torch_loss}, PARAMS, BATCH)


def in_subprocesses() -> gw.Report:
    candidates = {"torch": torch_loss, "mine": ALL["mine"], "raising": ALL["raising"]}
    return gw.verify(candidates, PARAMS, BATCH, timeout=60)


def under_settings_of_ones_own() -> None:
    """None of which is the default."""
    torch.set_default_dtype(torch.float64)
    previous, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), np.errstate(all="raise"), jax.enable_x64(True), jax.default_matmul_precision("float32"):
            assert not changed_by(of_black_boxes)
            assert not changed_by(of_a_traced_loss)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(previous)
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "work",
    [
        of_black_boxes,
        of_a_traced_loss,
        of_a_network,
        of_a_module,
        under_settings_of_ones_own,
        pytest.param(compiled, marks=pytest.mark.slow),
        pytest.param(in_subprocesses, marks=pytest.mark.slow),
    ],
)
def test_nothing_of_the_callers_changes(work: Callable[[], Any]) -> None:
    assert changed_by(work) == []


# Each, changed: a `world` that did not see it would prove nothing


def _train() -> None:
    MODULE.train(not MODULE.training)


def _write_to_array() -> None:
    PARAMS["b"] += 0.0
    PARAMS["b"][0] += 1.0


def _write_to_tensor() -> None:
    with torch.no_grad():
        CLOSED_OVER.add_(0.0)


def _add_gradient() -> None:
    CLOSED_OVER.grad = torch.ones_like(CLOSED_OVER)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "torch's default dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "torch's grad mode": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "torch's determinism": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "torch's matmul precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
    "torch's random state": (lambda: torch.rand(()), lambda: None),
    "torch's threads": (
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        lambda: torch.set_num_threads(torch.get_num_threads() - 1),
    ),
    "jax's x64": (
        lambda: jax.config.update("jax_enable_x64", True),
        lambda: jax.config.update("jax_enable_x64", False),
    ),
    "jax's matmul precision": (
        lambda: jax.config.update("jax_default_matmul_precision", "highest"),
        lambda: jax.config.update("jax_default_matmul_precision", None),
    ),
    "jax's debugging": (
        lambda: jax.config.update("jax_debug_nans", True),
        lambda: jax.config.update("jax_debug_nans", False),
    ),
    "numpy's random state": (np.random.random, lambda: None),
    "numpy's errors": (lambda: np.seterr(all="raise"), lambda: np.seterr(all="warn", under="ignore")),
    "numpy's printing": (lambda: np.set_printoptions(precision=3), lambda: np.set_printoptions(precision=8)),
    "random's state": (random.random, lambda: None),
    "environment variables": (
        lambda: os.environ.update(GRADWITNESS_TEST="1"),
        lambda: os.environ.pop("GRADWITNESS_TEST"),
    ),
    "working directory": (lambda: os.chdir(Path(__file__).parent), lambda: os.chdir(Path(__file__).parents[2])),
    "warnings filters": (lambda: warnings.simplefilter("ignore"), lambda: None),
    "arrays": (_write_to_array, lambda: None),
    "tensors": (_write_to_tensor, lambda: None),
    "gradients": (_add_gradient, lambda: setattr(CLOSED_OVER, "grad", None)),
    "training": (_train, _train),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_would_be_seen(name: str) -> None:
    change, undo = CHANGES[name]
    with warnings.catch_warnings():
        try:
            assert name in changed_by(change)
        finally:
            undo()


def test_all_of_it_has_its_change() -> None:
    assert list(CHANGES) == list(world())
