"""Seconds beside gradcheck's, passes at growing sizes, and seconds of a gradient in 256 bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import gradwitness as gw
from gradwitness import registry
from gradwitness.evidence.effort import reference_seconds
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.reference import reference
from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Address
from gradwitness.run.cell import cell
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict

__all__ = [
    "WIDTHS",
    "Counting",
    "Passes",
    "checkers",
    "forward_seconds",
    "in_turn",
    "parameters",
    "passes",
    "reference_time",
    "step_seconds",
    "tanh_mlp",
]

STEPS = 5  # of training, that are timed
WIDTHS = (72, 250, 802)  # of tanh mlps of about 10,000, 100,000 and 1,000,000 parameters


def tanh_mlp(width: int = WIDTHS[0]) -> Problem:
    """Three hidden layers, 20 features, 10 outputs, batch 32."""
    return network("mlp", batch=32, features=20, width=width, depth=3, outputs=10)


def parameters(problem: Problem) -> int:
    return sum(x.size for x in problem.primals.values())


def checkers(problem: Problem) -> dict[str, Callable[[], None]]:
    """Each finds torch's float64 gradient of this problem right, or raises."""
    return {
        "gradcheck, slow": lambda: _gradcheck(problem, fast_mode=False),
        "gradcheck, fast": lambda: _gradcheck(problem, fast_mode=True),
        "gradwitness --reference differences": lambda: _gradwitness(problem, "differences"),
        "gradwitness, 256 bits": lambda: _gradwitness(problem, "extended"),
    }


def _gradcheck(problem: Problem, *, fast_mode: bool) -> None:
    loss = registry.backend("torch").lower(problem.graph)
    leaves = {path: torch.tensor(x) for path, x in problem.leaves.items()}
    paths = problem.differentiated
    given = [leaves[path].requires_grad_() for path in paths]
    torch.autograd.gradcheck(
        lambda *moved: loss({**leaves, **dict(zip(paths, moved, strict=True))}), given, fast_mode=fast_mode
    )


def _gradwitness(problem: Problem, reference: str) -> None:
    report = gw.verify(problem, backends="torch", dtypes="float64", reference=reference)
    if not report:
        raise AssertionError(repr(report))


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each, taken by turns so that a busy moment hits all; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(seconds[1:])) for name, seconds in taken.items()}


def step_seconds(loss: Callable[[], torch.Tensor], trained: Sequence[torch.Tensor]) -> float:
    """A training step, forward and backward: the median of a few, after one that warms up."""
    return in_turn({"step": lambda: torch.autograd.grad(loss(), trained)}, STEPS)["step"]


@dataclass
class Passes:
    """How often a graph was run: whole, in the part behind one leaf, and backwards."""

    whole: int = 0
    part: int = 0
    backward: int = 0


class Counting:
    """An interpreter that counts what it is asked for."""

    def __init__(self, interpreter: Any, passes: Passes) -> None:
        self.interpreter, self.passes = interpreter, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.interpreter, name)

    def forward(self, *args: Any, reuse: Any = None, **options: Any) -> Any:
        if reuse is None:
            self.passes.whole += 1
        else:
            self.passes.part += 1
        return self.interpreter.forward(*args, reuse=reuse, **options)

    def backward(self, *args: Any, **options: Any) -> Any:
        self.passes.backward += 1
        return self.interpreter.backward(*args, **options)

    @contextmanager
    def extended(self, bits: int) -> Any:
        with self.interpreter.extended(bits) as wide:
            yield Counting(wide, self.passes)


def forward_seconds(problem: Problem) -> float:
    """One forward pass in NumPy: the median of a few."""
    interpreter = registry.interpreter()
    return in_turn({"forward": lambda: interpreter.forward(problem.graph, problem.leaves)}, 20)["forward"]


def passes(problem: Problem, *, seconds: float) -> Passes:
    """What it takes to judge torch's float64 gradient; seconds: for a reference in 256 bits, 0 to do without."""
    counted = Passes()
    interpreter = registry.interpreter()
    arithmetic = interpreter.capabilities.arithmetic("float64")
    referee = FromGraph(Counting(interpreter, counted), problem, "float64", arithmetic, 0, seconds)
    address = Address(problem.name, "torch", "torch", "cpu", "float64")
    rows = cell(
        {"torch": address},
        {"torch": Candidate("torch")},
        problem,
        "float64",
        Settings(dtypes=("float64",)),
        referee=referee,
        progress=lambda text: None,
    )
    if wrong := [row for row in rows if row.verdict is not Verdict.AGREE]:
        raise AssertionError(repr(wrong))
    return counted


def reference_time(problem: Problem) -> tuple[float, float, list[str]]:
    """Seconds of a gradient in 256 bits with its validation, the estimate of them, and the leaves refused."""
    interpreter = registry.interpreter()
    problem.graph  # noqa: B018  # traced outside the time
    started = time.perf_counter()
    found = reference(interpreter, problem, seed=(0,))
    taken = time.perf_counter() - started
    return taken, reference_seconds(interpreter, problem), sorted(found.refused)
