"""Loops as their users write them: a tape, the clock, the backward, the clock. They know nothing of gradwitness.timing.

Each is made of a problem of the zoo's mlp, in float32, and gives the seconds of one backward at each call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradwitness.problem import Candidate, Problem

__all__ = ["CANDIDATES", "LOOPS"]

Loop = Callable[[], float]


def torch_loss(params: Any, batch: Any) -> Any:
    import torch

    return _loss(params, batch, torch.tanh)


def jax_loss(params: Any, batch: Any) -> Any:
    import jax.numpy as jnp

    return _loss(params, batch, jnp.tanh)


def _loss(params: Any, batch: Any, tanh: Callable[[Any], Any]) -> Any:
    x, (*hidden, last) = batch["x"], params["layers"]
    for layer in hidden:
        x = tanh(x @ layer["weight"].T + layer["bias"])
    return ((x @ last["weight"].T + last["bias"] - batch["target"]) ** 2).mean()


def torch_loop(problem: Problem) -> Loop:
    import torch

    def tensor(x: Any) -> torch.Tensor:
        return torch.tensor(x, dtype=torch.float32)

    batch = {key: tensor(x) for key, x in problem.batch.items()}
    layers = [{key: tensor(x).requires_grad_() for key, x in layer.items()} for layer in problem.params["layers"]]
    leaves = [x for layer in layers for x in layer.values()]

    def once() -> float:
        loss = torch_loss({"layers": layers}, batch)
        started = time.perf_counter()
        torch.autograd.grad(loss, leaves)
        return time.perf_counter() - started

    return once


def jax_loop(problem: Problem) -> Loop:
    import jax
    import jax.numpy as jnp

    def array(x: Any) -> jax.Array:
        return jnp.asarray(x, dtype=jnp.float32)

    params, batch = jax.tree.map(array, problem.params), jax.tree.map(array, problem.batch)
    one = jnp.ones((), jnp.float32)

    @jax.jit
    def forward(params: Any, batch: Any) -> Any:  # the batch is an argument, as it is another at each step
        return jax.vjp(lambda p: jax_loss(p, batch), params)[1]

    @jax.jit
    def backward(pullback: Any, cotangent: jax.Array) -> Any:
        return pullback(cotangent)[0]

    def once() -> float:
        pullback = jax.block_until_ready(forward(params, batch))
        started = time.perf_counter()
        jax.block_until_ready(backward(pullback, one))
        return time.perf_counter() - started

    return once


def numpy_loop(problem: Problem) -> Loop:
    from gradwitness_numpy import sweep
    from gradwitness_numpy.rules import RULES

    leaves = {path: x.astype(np.float32) for path, x in problem.leaves.items()}
    graph, wrt, one = problem.graph, problem.differentiated, np.ones((), np.float32)

    def once() -> float:
        tape = sweep.forward(graph, RULES, leaves)
        started = time.perf_counter()
        sweep.backward(tape, wrt, one)
        return time.perf_counter() - started

    return once


LOOPS: Mapping[str, Callable[[Problem], Loop]] = {"numpy": numpy_loop, "torch": torch_loop, "jax": jax_loop}
CANDIDATES: Mapping[str, Candidate] = {
    "numpy": Candidate("numpy"),
    "torch": Candidate("torch", torch_loss),
    "jax": Candidate("jax", jax_loss),
}
