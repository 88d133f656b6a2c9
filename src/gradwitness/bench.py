"""What `gradwitness bench` times: networks of the zoo at some sizes, and a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradwitness import registry
from gradwitness.networks import network
from gradwitness.networks import sizes as zoo
from gradwitness.problem import Problem
from gradwitness.report import Report, joined_environments
from gradwitness.settings import Settings
from gradwitness.shards import Part, Shard
from gradwitness.targets import expected_arguments, is_target, load
from gradwitness.terminal import progress
from gradwitness.timing.engine import Benchmark, available_threads, expect_threads, timings
from gradwitness.timing.records import Grown, Timing
from gradwitness.timing.roofline import Machine
from gradwitness.verification import verify, verify_problems

__all__ = ["grown", "timed"]

DEFAULT = ("mlp", "convnet", "lstm", "transformer")
GROWING = {"width": ("mlp",), "depth": ("mlp",), "batch": ("mlp",), "sequence": ("lstm",)}  # where none is named
OWN = ""  # the size of what a user brings
WEIGHTS = {"small": 1, "medium": 2, "large": 4}  # how long a size takes to verify and time


def timed(
    networks: Sequence[str],
    sizes: Sequence[str],
    backends: Sequence[str],
    settings: Settings,
    *,
    threads: int | None,
    budget: float,
    processes: int,
    shard: Shard | None = None,
) -> Benchmark:
    """Each network, verified before it is timed. shard: which part of this is timed here, if not all.

    Raises GradwitnessError for what is not there, and where there are fewer cells than shards.
    """
    expect_threads(threads)
    chosen = _installed(backends)
    names = list(dict.fromkeys(networks or DEFAULT))
    for name in names:
        if not is_target(name):
            network(name)
    how: dict[str, Any] = {"threads": threads, "budget": budget, "processes": processes}
    cells = [_Cell(name, size, settings) for name in names for size in ([OWN] if is_target(name) else sizes)]
    numbers: Sequence[int] = range(len(cells))
    if shard is not None:
        cells = [part for cell in cells for part in cell.parts]
        numbers = shard.cells([WEIGHTS.get(cell.size, 1) for cell in cells])
    machine = Machine(threads or available_threads())
    environments: list[Mapping[str, Any]] = []
    found: dict[int, list[Timing]] = {}
    with progress(len(numbers)) as shown:
        for number in numbers:
            report = _report(cells[number], chosen, shown.step)
            environments.append(report.environment)
            found[number] = list(timings(report, **how, machine=machine, progress=shown.step))
            shown.done(cells[number].named)
    every, environment = tuple(t for number in numbers for t in found[number]), joined_environments(environments)
    if shard is None:
        return Benchmark(every, environment)
    asked = {"networks": names, "sizes": sizes, "backends": chosen, **vars(settings), **how}
    return Benchmark(every, environment, Part(shard, asked, tuple((n, len(found[n])) for n in numbers)))


def grown(
    networks: Sequence[str],
    along: str,
    size: str,
    backends: Sequence[str],
    settings: Settings,
    *,
    threads: int | None,
    budget: float,
    processes: int,
) -> Benchmark:
    """Each network at several sizes, from this one on; verified at each before it is timed there.

    Raises GradwitnessError for what is not there.
    """
    expect_threads(threads)
    chosen = _installed(backends)
    names = list(dict.fromkeys(networks or GROWING.get(along, DEFAULT)))
    cases = [(name, found) for name in names for found in zoo.grown(name, along, size, seed=settings.seed).items()]
    machine = Machine(threads or available_threads())
    every: list[Timing] = []
    environments: list[Mapping[str, Any]] = []
    with progress(len(cases)) as shown:
        for name, (extent, problem) in cases:
            report = verify_problems([(problem, chosen)], settings, progress=shown.step)
            environments.append(report.environment)
            place = Grown(name, along, extent)
            how: dict[str, Any] = {"machine": machine, "budget": budget, "processes": processes}
            every += (replace(timing, grown=place) for timing in timings(report, **how, progress=shown.step))
            shown.done(problem.name)
    return Benchmark(tuple(every), joined_environments(environments))


def _installed(backends: Sequence[str]) -> tuple[str, ...]:
    """These, or all that are installed. Raises GradwitnessError for one that is not."""
    chosen = tuple(backends) or tuple(n for n in registry.backend_names() if not registry.missing_modules(n))
    for name in chosen:
        registry.installed(name)
    return chosen


@dataclass(frozen=True)
class _Cell:
    """A network of a size, or a user's own, in some dtypes on some devices."""

    name: str
    size: str
    settings: Settings

    @property
    def named(self) -> str:
        return " ".join(filter(None, (self.name, self.size, *self.settings.dtypes)))

    @property
    def parts(self) -> list[_Cell]:
        """The same in one dtype on one device each, in the order of the timings."""
        return [replace(self, settings=settings) for settings in self.settings.by_cell]


def _report(cell: _Cell, backends: Sequence[str], step: Any) -> Report:
    settings = cell.settings
    if is_target(cell.name):
        return _own(cell.name, backends, settings, step)
    problem = zoo.sized(cell.name, cell.size, seed=settings.seed)
    return verify_problems([(problem, tuple(backends))], settings, progress=step)


def _own(name: str, backends: Sequence[str], settings: Settings, step: Any) -> Report:
    """What verifying a user's own candidates gives; their losses, read into graphs, run on every backend too."""
    found = load(name)
    if isinstance(found, Problem) and found.loss is not None:
        return verify_problems([(found, tuple(backends))], settings, progress=step)
    candidates, params, batch, further = expected_arguments(name, found, beside="a gradwitness.Problem, or ")
    how = {key: value for key, value in vars(settings).items() if key in ("dtypes", "devices", "precision", "seed")}
    named = {"name": name.rpartition(":")[2], "backends": tuple(backends)}
    return verify(candidates, params, batch, progress=step, **{**named, **further, **how})
