"""Measure what verifying costs, and write docs/cost.md: `python -m benchmarks.cost`."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import click
from tabulate import tabulate

from benchmarks.cost.measure import (
    WIDTHS,
    checkers,
    forward_seconds,
    in_turn,
    parameters,
    passes,
    reference_time,
    tanh_mlp,
)
from gradwitness.networks import NETWORKS, network

DOCS = Path(__file__).parents[2] / "docs"
VERSIONS = ("numpy", "torch", "python-flint")
PEERS = ("gradcheck, slow", "gradcheck, fast")


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Time gradwitness beside gradcheck, count passes at growing sizes, and time gradients in 256 bits."""
    page = DOCS / "cost.md"
    text = page.read_text(encoding="utf-8")
    for name, block in (("beside", beside(rounds)), ("sizes", sizes(rounds)), ("reference", references())):
        text = with_block(text, name, block)
    page.write_text(text, encoding="utf-8")


def with_block(page: str, name: str, block: str) -> str:
    """The page with one of its blocks made anew."""
    start = page.index(f"<!-- table: {name} -->\n```\n")
    end = page.index("```", page.index("```", start) + 3)
    return f"{page[:start]}<!-- table: {name} -->\n```\n{block}\n{page[end:]}"


def machine() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return f"{versions}; {platform.machine()}, {os.cpu_count()} cores, {threads} threads"


def beside(rounds: int) -> str:
    """Seconds of each checker on one problem, and as multiples of gradcheck's."""
    problem = tanh_mlp()
    seconds = in_turn(checkers(problem), rounds)
    rows = [
        [name, f"{taken:.4f}", *(f"{taken / seconds[peer]:.3g}" for peer in PEERS)] for name, taken in seconds.items()
    ]
    heads = ["", "seconds", *(f"over {peer}" for peer in PEERS)]
    return f"{machine()}\ntanh mlp, {parameters(problem):,} parameters, batch 32, float64\n\n" + _table(rows, heads)


def sizes(rounds: int) -> str:
    """Passes and seconds as the same network grows."""
    rows = []
    for width in WIDTHS:
        problem = tanh_mlp(width)
        work = {"verify": checkers(problem)["gradwitness --reference differences"]}
        seconds, forward = in_turn(work, rounds)["verify"], forward_seconds(problem)
        counted = passes(problem, seconds=0)
        row = [parameters(problem), counted.whole, counted.part, counted.backward, seconds, seconds / forward]
        rows.append([f"{x:,}" if isinstance(x, int) else f"{x:.3g}" for x in row])
    heads = ["parameters", "forward", "part of one", "backward", "seconds", "over a forward"]
    return _table(rows, heads)


def references() -> str:
    """Seconds of each network's gradient in 256 bits."""
    problems = {name: network(name) for name in NETWORKS}
    problems["mlp, batch 8"] = network("mlp", batch=8, features=64, width=256, depth=3, outputs=10)
    rows, total = [], 0.0
    for name, problem in problems.items():
        seconds, estimate, refused = reference_time(problem)
        total += seconds if name in NETWORKS else 0
        validated = f"{len(problem.differentiated) - len(refused)} of {len(problem.differentiated)}"
        rows.append([name, f"{parameters(problem):,}", validated, f"{seconds:.2f}", f"{estimate:.2f}"])
    rows.insert(len(NETWORKS), ["all of them", "", "", f"{total:.2f}", ""])
    return _table(rows, ["network", "parameters", "validated", "seconds", "estimate"])


def _table(rows: list[list[str]], heads: list[str]) -> str:
    align = ("left", *["right"] * (len(heads) - 1))
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True, colalign=align)


if __name__ == "__main__":
    main()
