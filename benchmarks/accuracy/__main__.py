"""Hold backward times against loops written by hand around the same calls: `python -m benchmarks.accuracy`."""

from __future__ import annotations

import click
from tabulate import tabulate

from benchmarks.accuracy.loops import CANDIDATES, LOOPS
from benchmarks.accuracy.measure import DTYPE, PART, SECONDS, Agreement, compared, problem_of
from gradwitness.networks.sizes import NAMES
from gradwitness.run.isolated import isolate, start
from gradwitness.settings import Settings
from gradwitness.timing.engine import available_threads

HEADER = ("mlp", "backend", "gradwitness", "loop", "difference", "allowed", "")


@click.command()
@click.option("--budget", default=2.0, show_default=True, help="Seconds of calls, for each size and backend.")
@click.option("--threads", default=available_threads(), help="Of each backend (default: the cores).")
def main(budget: float, threads: int) -> None:
    """Print both times of each backend at each size; exit with 1 if two differ by more than is allowed."""
    found = {(size, backend): measured(size, backend, budget, threads) for size in NAMES for backend in LOOPS}
    print(f"{threads} threads, medians of short turns; allowed are {PART:.0%}, or {1e6 * SECONDS:g} us if that is more")
    print(tabulate([[*key, *cells(one)] for key, one in found.items()], HEADER))
    raise SystemExit(0 if all(one.agrees for one in found.values()) else 1)


def measured(size: str, backend: str, budget: float, threads: int) -> Agreement:
    """In a process of its own, as the candidates of `gradwitness bench` are."""
    settings = Settings(dtypes=(DTYPE,), timeout=600.0)
    answering = start(backend, settings, threads=threads)
    isolated = isolate(CANDIDATES[backend], problem_of(size), DTYPE, "cpu", settings, answering=answering)
    try:
        found: Agreement = isolated.apply(compared, backend, size, budget)
        return found
    finally:
        isolated.end()


def cells(one: Agreement) -> list[str]:
    figures = (one.ours, one.loop, one.difference, one.allowed)
    return [*(f"{1e6 * seconds:.1f} us" for seconds in figures), "" if one.agrees else "differs"]


if __name__ == "__main__":
    main()
