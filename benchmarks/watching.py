"""What watching a training costs: `python -m benchmarks.watching`.

The zoo's transformer, at medium size, is trained in torch by Adam, a block of steps watched and a block not, by turns.
The first watched step of each block takes down the lines of the user's code, once for a training, and is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import click
import torch

import gradwitness as gw
from gradwitness.networks.sizes import sized
from gradwitness.problem import Problem
from gradwitness.watching.watched import EVERY
from gradwitness_torch.eager import TorchBackend

__all__ = ["Trained", "main", "ratios"]


class Trained(torch.nn.Module):
    """A problem's loss over its params, as torch runs it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.loss = TorchBackend().lower(problem.graph, "float32")
        leaves = {path: torch.tensor(x) for path, x in {**problem.leaves, **problem.graph.constants}.items()}
        leaves = {path: x.float() if x.is_floating_point() else x for path, x in leaves.items()}
        self.names = {path: path.replace(".", "/") for path in problem.differentiated}
        self.weights = torch.nn.ParameterDict({name: leaves[path] for path, name in self.names.items()})
        self.data = {path: x for path, x in leaves.items() if path not in self.names}

    def forward(self) -> Any:
        return self.loss(self.data | {path: self.weights[name] for path, name in self.names.items()})


def ratios(module: torch.nn.Module, *, rounds: int, steps: int, every: int = EVERY) -> list[float]:
    """Seconds of a block of watched steps over those of one that is not, by round; whoever is first is last in the
    next."""
    optimizer = torch.optim.Adam(module.parameters(), 1e-4)

    def once() -> None:
        optimizer.zero_grad()
        module().backward()
        optimizer.step()

    def plain() -> float:
        once()
        return _seconds(once, steps)

    def watched() -> float:
        with gw.watch(module, every=every) as seen:
            once()
            taken = _seconds(once, steps)
        assert seen, repr(seen)
        return taken

    found = []
    for number in range(rounds):
        order = (plain, watched) if number % 2 == 0 else (watched, plain)
        taken = {run: run() for run in order}
        found.append(taken[watched] / taken[plain])
    return found


def _seconds(once: Callable[[], None], steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        once()
    return time.perf_counter() - started


@click.command()
@click.option("--size", default="medium", show_default=True)
@click.option("--rounds", default=20, show_default=True)
@click.option("--steps", default=100, show_default=True, help="In each block.")
def main(size: str, rounds: int, steps: int) -> None:
    """Print the median ratio, and the middle half of all."""
    module = Trained(sized("transformer", size))
    count = sum(p.numel() for p in module.parameters())
    for every in (1, EVERY, 10 * EVERY):
        found = sorted(ratios(module, rounds=rounds, steps=steps, every=every))
        quarter = len(found) // 4
        low, high = found[quarter], found[-1 - quarter]
        print(
            f"transformer {size}, {count:,} parameters, one step of {every} looked at closely: "
            f"{median(found):.3f} times as long ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
