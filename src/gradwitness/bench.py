"""What `gradwitness bench` times: networks of the zoo at some sizes, and a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradwitness import registry
from gradwitness.errors import GradwitnessError
from gradwitness.networks import network
from gradwitness.networks.sizes import sizes as sizes_of
from gradwitness.report import Report, joined_environments
from gradwitness.settings import Settings
from gradwitness.shards import Part, Shard
from gradwitness.targets import arguments, is_target, load
from gradwitness.terminal import progress
from gradwitness.timing.engine import Benchmark, timings
from gradwitness.timing.records import Timing
from gradwitness.verification import verify, verify_problems

__all__ = ["timed"]

DEFAULT = ("mlp", "convnet", "lstm", "transformer")
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
    chosen = tuple(backends) or tuple(n for n in registry.backend_names() if not registry.missing_modules(n))
    for name in chosen:
        registry.installed(name)
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
    environments: list[Mapping[str, Any]] = []
    found: dict[int, list[Timing]] = {}
    with progress(len(numbers)) as shown:
        for number in numbers:
            report = _report(cells[number], chosen, shown.step)
            environments.append(report.environment)
            found[number] = list(timings(report, **how, progress=shown.step))
            shown.done(cells[number].named)
    every, environment = tuple(t for number in numbers for t in found[number]), joined_environments(environments)
    if shard is None:
        return Benchmark(every, environment)
    asked = {"networks": names, "sizes": sizes, "backends": chosen, **vars(settings), **how}
    return Benchmark(every, environment, Part(shard, asked, tuple((n, len(found[n])) for n in numbers)))


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
    problem = network(cell.name, seed=settings.seed, **sizes_of(cell.name, cell.size))
    problem = replace(problem, name=f"{cell.name}-{cell.size}")
    return verify_problems([(problem, tuple(backends))], settings, progress=step)


def _own(name: str, backends: Sequence[str], settings: Settings, step: Any) -> Report:
    """What verifying a user's own candidates gives; their losses, read into graphs, run on every backend too."""
    found = load(name)
    given = found() if callable(found) else found
    if (parts := arguments(given)) is None:
        raise GradwitnessError(
            f"{name}: expected a function without arguments that returns (candidates, params, batch), got "
            f"{type(given).__name__}"
        )
    candidates, params, batch, further = parts
    how = {key: value for key, value in vars(settings).items() if key in ("dtypes", "devices", "precision", "seed")}
    named = {"name": name.rpartition(":")[2], "backends": tuple(backends)}
    return verify(candidates, params, batch, progress=step, **{**named, **further, **how})
