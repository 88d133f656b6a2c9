"""Forward against reverse mode: `python -m benchmarks.modes`.

A whole Jacobian of an mlp of INPUTS inputs, by forward mode (a pass for each input, of all at once by vmap) and by
reverse mode (a pass for each output), by turns, and the memory of each. Where the ratio of their times is 1, they
cross. In NumPy, which has no vmap, a tangent and a backward pass are timed, and counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import torch
from tabulate import tabulate

from gradwitness import ops, registry
from gradwitness.derivatives import tangent
from gradwitness.graph import direction, trace
from gradwitness.timing.calls import most_beyond

__all__ = ["crossover", "main", "measured"]

INPUTS, WIDTH, DEPTH = 64, 256, 6
OUTPUTS = (1, 4, 16, 64, 256, 1024)
ROUNDS = 7
Ways = Mapping[str, Callable[[], Any]]  # "forward" and "reverse"


def weights(outputs: int) -> list[Any]:
    """Of the layers, in float64."""
    rng = np.random.default_rng(0)
    sizes = [INPUTS, *[WIDTH] * DEPTH, outputs]
    return [rng.standard_normal((n, m)) / math.sqrt(m) for m, n in pairwise(sizes)]


def in_torch(outputs: int) -> Ways:
    layers, x = [torch.tensor(w) for w in weights(outputs)], torch.linspace(-1, 1, INPUTS, dtype=torch.float64)

    def function(x: Any) -> Any:
        for layer in layers:
            x = torch.tanh(layer @ x)
        return x

    return {"forward": partial(torch.func.jacfwd(function), x), "reverse": partial(torch.func.jacrev(function), x)}


def in_jax(outputs: int) -> Ways:
    layers, x = [jnp.asarray(w) for w in weights(outputs)], jnp.linspace(-1.0, 1.0, INPUTS)

    def function(x: Any) -> Any:
        for layer in layers:
            x = jnp.tanh(layer @ x)
        return x

    ways = {"forward": jax.jit(jax.jacfwd(function)), "reverse": jax.jit(jax.jacrev(function))}
    return {name: partial(lambda way: jax.block_until_ready(way(x)), way) for name, way in ways.items()}


def in_numpy(outputs: int) -> Ways:
    """A pass of each mode as often as a Jacobian takes; forward mode is the graph of the tangent, run forward."""
    layers = weights(outputs)

    def loss(p: Any, b: Any) -> Any:
        x = p["x"]
        for number in range(len(layers)):
            x = ops.tanh(b[f"w{number}"] @ x)
        return (x * b["cotangent"]).sum()

    leaves = {f"w{number}": w for number, w in enumerate(layers)} | {"cotangent": np.ones(outputs)}
    point = {"x": np.linspace(-1, 1, INPUTS)}
    graph, interpreter = trace(loss, point, leaves), registry.interpreter()
    forward, along = tangent(graph, ("x",)), {direction("x"): np.ones(INPUTS)}

    def by_reverse() -> None:
        tape = interpreter.forward(graph, leaves | point)
        for _ in range(outputs):
            interpreter.backward(tape, ("x",))

    def by_forward() -> None:
        for _ in range(INPUTS):
            interpreter.forward(forward, leaves | point | along)

    return {"forward": by_forward, "reverse": by_reverse}


BACKENDS: Mapping[str, Callable[[int], Ways]] = {"numpy": in_numpy, "torch": in_torch, "jax": in_jax}


def measured(ways: Ways, rounds: int = ROUNDS) -> dict[str, float]:
    """The middle seconds of each way, by turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    for _ in range(rounds):
        for name, call in ways.items():
            started = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in found.items()}


def crossover(ratios: Mapping[int, float]) -> float | None:
    """The number of outputs at which reverse over forward is 1, between two that were measured, on logarithmic scales;
    None where they do not cross."""
    points = sorted(ratios.items())
    for (m, r), (n, s) in pairwise(points):
        if r <= 1 < s:
            part = -math.log(r) / (math.log(s) - math.log(r))
            return math.exp(math.log(m) + part * (math.log(n) - math.log(m)))
    return None


def _table(rounds: int) -> tuple[list[list[Any]], list[str]]:
    """(a line for each backend and number of outputs, where each backend crosses)."""
    rows, crossings = list[list[Any]](), list[str]()
    for backend, ways_of in BACKENDS.items():
        ratios = {}
        for outputs in OUTPUTS:
            ways = ways_of(outputs)
            seconds = measured(ways, rounds)
            bytes_of = {name: most_beyond(call) for name, call in ways.items()}
            ratios[outputs] = seconds["reverse"] / seconds["forward"]
            held = [f"{(bytes_of[name] or 0) / 2**20:.1f}" for name in ("forward", "reverse")]
            times = [f"{1e3 * seconds[name]:.3g}" for name in ("forward", "reverse")]
            rows.append([backend, outputs, *times, f"{ratios[outputs]:.2g}", *held])
        crossed = crossover(ratios)
        crossings.append(f"{backend}: " + ("no crossing" if crossed is None else f"{crossed:.0f} outputs"))
    return rows, crossings


@click.command()
@click.option("--rounds", default=ROUNDS, show_default=True)
def main(rounds: int) -> None:
    """Print seconds and memory of both modes, by outputs, and where they cross."""
    with jax.enable_x64(True):
        rows, crossings = _table(rounds)
    header = ["backend", "outputs", "forward, ms", "reverse, ms", "reverse/forward", "forward, MiB", "reverse, MiB"]
    click.echo(tabulate(rows, header, disable_numparse=True, colalign=("left", *["right"] * 6)))
    click.echo(f"\n{INPUTS} inputs; reverse takes as long as forward at: {', '.join(crossings)}")


if __name__ == "__main__":
    main()
