"""What `gradwitness bench` times: networks of the zoo at some sizes, and a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gradwitness import registry
from gradwitness.errors import GradwitnessError
from gradwitness.networks import network
from gradwitness.networks.sizes import sizes as sizes_of
from gradwitness.report import Report
from gradwitness.settings import Settings
from gradwitness.targets import is_target, load
from gradwitness.terminal import progress
from gradwitness.timing.engine import Benchmark, timings
from gradwitness.timing.records import Timing
from gradwitness.verification import verify, verify_problems

__all__ = ["timed"]

DEFAULT = ("mlp", "convnet", "lstm", "transformer")


def timed(
    networks: Sequence[str],
    sizes: Sequence[str],
    backends: Sequence[str],
    settings: Settings,
    *,
    threads: int | None,
    budget: float,
    processes: int,
) -> Benchmark:
    """Each network, verified before it is timed.

    Raises GradwitnessError for what is not there.
    """
    chosen = tuple(backends) or tuple(n for n in registry.backend_names() if not registry.missing_modules(n))
    for name in chosen:
        registry.installed(name)
    names = list(dict.fromkeys(networks or DEFAULT))
    for name in names:
        if not is_target(name):
            network(name)
    environment: dict[str, Any] = {}
    found: list[Timing] = []
    with progress(len(names)) as shown:
        for name in names:
            for report in _reports(name, sizes, chosen, settings, shown.step):
                environment |= report.environment
                found += timings(report, threads=threads, budget=budget, processes=processes, progress=shown.step)
            shown.done(name)
    return Benchmark(tuple(found), environment)


def _reports(
    name: str, sizes: Sequence[str], backends: Sequence[str], settings: Settings, step: Any
) -> Iterator[Report]:
    if is_target(name):
        yield _own(name, backends, settings, step)
        return
    for size in sizes:
        problem = replace(network(name, seed=settings.seed, **sizes_of(name, size)), name=f"{name}-{size}")
        yield verify_problems([(problem, tuple(backends))], settings, progress=step)


def _own(name: str, backends: Sequence[str], settings: Settings, step: Any) -> Report:
    """What verifying a user's own candidates gives; their losses, read into graphs, run on every backend too."""
    found = load(name)
    given = found() if callable(found) else found
    if not isinstance(given, tuple) or len(given) != 3:
        raise GradwitnessError(
            f"{name}: expected a function without arguments that returns (candidates, params, batch), got "
            f"{type(given).__name__}"
        )
    candidates, params, batch = given
    options = {key: value for key, value in vars(settings).items() if key in ("dtypes", "devices", "precision", "seed")}
    return verify(
        candidates, params, batch, backends=tuple(backends), name=name.rpartition(":")[2], progress=step, **options
    )
