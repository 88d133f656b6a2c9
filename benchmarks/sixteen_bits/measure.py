"""How small an error of a 16-bit kernel is surely caught, and how many right kernels are accused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from benchmarks.sixteen_bits.kernels import KERNELS, LABELS, Kernel, planted
from gradwitness import registry
from gradwitness.capturing import captured_at
from gradwitness.dtypes import Array
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.projections import Noise, noise_at, projections
from gradwitness.evidence.reach import node_reach
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.run.referee import graph_referee
from gradwitness.run.sixteen_bits import narrow_sums, places
from gradwitness.settings import Settings
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.by_projection import Beside, judged_by_averages
from gradwitness.verdict.checks import compare

__all__ = ["FACTORS", "FAULTS", "LEAKS", "RULES", "measured"]

Faulty = Callable[[torch.Tensor, float], torch.Tensor]
Given = Sequence[Mapping[str, Array]]
FACTORS = (
    1.0001,
    1.0002,
    1.0005,
    1.001,
    1.002,
    1.003,
    1.004,
    1.005,
    1.0075,
    1.01,
    1.02,
    1.03,
    1.05,
    1.1,
    1.25,
    1.5,
    2.0,
    4.0,
)
LEAKS = tuple(10.0**-n for n in range(6, -1, -1))  # of a gradient where it should be 0
TOLERANCE = 2e-2  # rtol and atol of the fixed rule
SETTINGS = Settings(reference="differences")


def _scaled(where: tuple[Any, ...]) -> Faulty:
    def faulty(g: torch.Tensor, factor: float) -> torch.Tensor:
        g = g.clone()
        g[where] *= factor
        return g

    return faulty


FAULTS: dict[str, tuple[int, Faulty]] = {  # with the axes that a gradient must have
    "everywhere": (1, _scaled((...,))),
    "one row": (2, _scaled((..., 5, slice(None)))),
    "one head": (4, _scaled((slice(None), 1))),
    "the last block": (2, _scaled((..., slice(-8, None), slice(None)))),
}


@dataclass(frozen=True, eq=False)
class Bench:
    """A kernel in one dtype. Its referee is captured once, as only its inputs change."""

    name: str
    dtype: str

    @property
    def kernel(self) -> Kernel:
        return KERNELS[self.name]

    def problem(self, seed: int) -> Problem:
        params = self.kernel.drawn(seed)
        output = self.kernel.reference(_tensors(params), _tensors(self.kernel.batch))
        weights = np.random.default_rng([seed, 21]).standard_normal(tuple(output.shape))
        return Problem(self.name, None, params, dict(self.kernel.batch), cotangent=weights).rounded(self.dtype)

    @cached_property
    def graph(self) -> Graph:
        return captured_at(Candidate("torch", self.kernel.reference), self.problem(0), "float64", "cpu")

    def run(self, seed: int) -> Run:
        return Run(self, self.problem(seed), seed)


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(x) for name, x in arrays.items()}


@dataclass(frozen=True, eq=False)
class Run:
    """One draw: the kernel, right or not, is judged as `verify(..., referee=)` judges it."""

    bench: Bench
    problem: Problem
    seed: int

    @cached_property
    def known(self) -> FromGraph:
        return graph_referee(replace(self.problem, loss=self.bench.graph), self.bench.dtype, SETTINGS)

    def prepared(self, loss: Any) -> Prepared:
        return registry.installed("torch").prepare(
            Candidate("torch", loss), self.problem, dtype=self.bench.dtype, device="cpu"
        )

    @cached_property
    def places(self) -> list[Mapping[str, Array]]:
        return [{}, *places(self.problem, self.known.neighbours, self.bench.dtype, self.seed)]

    @cached_property
    def noise(self) -> list[dict[str, Noise]]:
        masks = {path: x for path, x in self.problem.leaves.items() if x.dtype.kind == "b"}
        arithmetic = registry.backend("torch").capabilities.arithmetic(self.bench.dtype)
        return [noise_at(self.known, arithmetic, p, masks=masks, number=n) for n, p in enumerate(self.places)]

    def given(self, prepared: Prepared) -> list[Mapping[str, Any]]:
        return [prepared.value_and_gradient({**self.problem.primals, **place})[1] for place in self.places]

    @cached_property
    def plain(self) -> list[Mapping[str, Any]]:
        return self.given(self.prepared(self.bench.kernel.reference))

    @cached_property
    def on_trial(self) -> Prepared:
        return self.prepared(self.bench.kernel.loss)

    def verdict(self, path: str, given: Given) -> Verdict:
        arithmetic = registry.backend("torch").capabilities.arithmetic(self.bench.dtype)
        floor = self.known.floors_of(arithmetic).tensors[path]
        apart = compare(given[0][path] - self.noise[0][path].truth, floor, node_reach(floor))
        found = Judgement(Verdict.AGREE if apart.ratio <= 1 else Verdict.DISAGREE, error=apart.error)
        seen = projections([n[path] for n in self.noise], [g[path] for g in given], [g[path] for g in self.plain])
        assert seen is not None
        beside = Beside("plain", self.bench.dtype, lambda: narrow_sums(self.known, arithmetic, path))
        return judged_by_averages(found, seen, beside).verdict

    def by_twice(self, path: str, given: Given) -> bool:
        """Whether it is farther off than twice what the plain function is, in the same dtype."""
        truth = self.noise[0][path].truth
        return bool(np.max(np.abs(given[0][path] - truth)) > 2 * np.max(np.abs(self.plain[0][path] - truth)))

    def by_tolerance(self, path: str, given: Given) -> bool:
        truth = self.noise[0][path].truth
        return not np.allclose(given[0][path], truth, rtol=TOLERANCE, atol=TOLERANCE)

    def caught(self, rule: str, path: str, fault: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        with planted(lambda name, g: fault(g) if name == path else g):
            given = self.given(self.on_trial)
        return RULES[rule](self, path, given)


RULES: dict[str, Callable[[Run, str, Given], bool]] = {
    "gradwitness": lambda run, path, given: run.verdict(path, given) is not Verdict.AGREE,
    "twice": Run.by_twice,
    "tolerance": Run.by_tolerance,
}


def measured(name: str, dtype: str, *, seeds: int, draws: int) -> Iterator[dict[str, Any]]:
    """One kernel in one dtype, after each run: alarms by rule and leaf of right runs, and by fault, leaf and rule the
    smallest factor that each of the first so many draws shows."""
    bench = Bench(name, dtype)
    paths = list(bench.kernel.shapes)
    alarms = {rule: dict.fromkeys(paths, 0) for rule in RULES}
    smallest: dict[str, dict[str, dict[str, float]]] = {}
    elements = {path: int(np.prod(shape)) for path, shape in bench.kernel.shapes.items()}
    for seed in range(seeds):
        run = bench.run(seed)
        right = run.given(run.on_trial)
        for rule, counts in alarms.items():
            for path in paths:
                counts[path] += RULES[rule](run, path, right)
        for fault, path, rule, found in _planted(run, paths) if seed < draws else ():
            worst = smallest.setdefault(fault, {}).setdefault(path, {})
            worst[rule] = max(worst.get(rule, 0.0), found)
        head = {"kernel": name, "dtype": dtype, "runs": seed + 1, "draws": min(seed + 1, draws), "elements": elements}
        yield {**head, "alarms": alarms, "smallest": smallest}


def _planted(run: Run, paths: Sequence[str]) -> Iterator[tuple[str, str, str, float]]:
    for fault, (axes, faulty) in FAULTS.items():
        for path in paths:
            if len(run.bench.kernel.shapes[path]) >= axes:
                for rule in RULES:
                    yield fault, path, rule, _smallest(run, rule, path, faulty, FACTORS)
    if "valid" in run.bench.kernel.batch:
        for rule in RULES:
            yield "masked rows", paths[0], rule, _smallest(run, rule, paths[0], _leaking, LEAKS)


def _leaking(g: torch.Tensor, leak: float) -> torch.Tensor:
    return torch.where(torch.as_tensor(LABELS["valid"])[:, None], g, leak)


def _smallest(run: Run, rule: str, path: str, faulty: Faulty, sizes: Sequence[float]) -> float:
    """By bisection; infinity if the largest is not caught."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if run.caught(rule, path, partial(_at, faulty, sizes[middle])):
            high = middle
        else:
            low = middle + 1
    return sizes[low] if low < len(sizes) else float("inf")


def _at(faulty: Faulty, size: float, g: torch.Tensor) -> torch.Tensor:
    return faulty(g, size)
