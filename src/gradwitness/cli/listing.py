"""`gradwitness list`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gradwitness import registry
from gradwitness.cli.group import cli
from gradwitness.terminal import show

if TYPE_CHECKING:
    from gradwitness.problem import Problem

__all__ = ["headline", "list_"]

NARROWEST = 20  # columns of text


@cli.command("list")
@click.argument("what", type=click.Choice(["networks", "backends", "ops"]))
def list_(what: str) -> None:
    """List the networks, the backends (with versions and devices), or the ops."""
    from tabulate import tabulate

    headers, rows = {"networks": _networks, "backends": _backend_rows, "ops": _ops}[what]()
    taken = sum(max(len(str(cell)) for cell in column) + 2 for column in list(zip(headers, *rows, strict=True))[:-1])
    room = max(shutil.get_terminal_size().columns - taken, NARROWEST)  # the last column is text, which may be folded
    widths = [None] * (len(headers) - 1) + [room]
    show(tabulate(rows, headers, tablefmt="simple", disable_numparse=True, maxcolwidths=widths))


def _networks() -> tuple[list[str], list[list[Any]]]:
    from gradwitness.networks import NETWORKS, network

    rows = []
    for name, make in NETWORKS.items():
        problem = network(name)
        size = sum(array.size for array in problem.primals.values())
        rows.append([name, len(problem.differentiated), size, headline(make)])
    return ["network", "tensors", "parameters", "what"], rows


def _backend_rows() -> tuple[list[str], list[list[Any]]]:
    rows = []
    for name in registry.backend_names():
        capabilities = registry.backend(name).capabilities
        missing = registry.missing_modules(name)
        state = f"not installed: {capabilities.install}" if missing else ", ".join(registry.backend(name).devices())
        versions = ", ".join(f"{m} {v}" for m, v in registry.versions(name).items())
        rows.append([name, versions, state, ", ".join(capabilities.dtypes)])
    return ["backend", "versions", "devices", "dtypes"], rows


def _ops() -> tuple[list[str], list[list[Any]]]:
    """Each op, and how each framework runs it: by a function of its own, or as a composition."""
    from gradwitness.ops import OPS

    names = [n for n in registry.backend_names() if not registry.backend(n).capabilities.interpreter]
    capabilities = [registry.backend(name).capabilities for name in names]
    ways = {
        op: ["composed" if op in c.composed else "native" if op in c.ops else "-" for c in capabilities] for op in OPS
    }
    rows = [[op.name, "fused" if op.definition else "elementary", *ways[op.name], op.summary] for op in OPS.values()]
    return ["op", "kind", *names, "what"], rows


def headline(make: Callable[..., Problem]) -> str:
    """The first line of a network's docstring."""
    return (make.__doc__ or "").split("\n", maxsplit=1)[0]
