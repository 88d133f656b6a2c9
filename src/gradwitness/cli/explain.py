"""`gradwitness explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradwitness.cli.files import write
from gradwitness.cli.group import cli
from gradwitness.cli.listing import headline
from gradwitness.cli.options import FILE, option
from gradwitness.errors import GradwitnessError
from gradwitness.targets import is_target, load
from gradwitness.terminal import show
from gradwitness.writing import expect_writable

if TYPE_CHECKING:
    from gradwitness.problem import Problem

__all__ = ["explain"]


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"the rate must be positive and finite, got {value:g}")
    return value


@cli.command()
@click.argument("name", metavar="NETWORK")
@click.option("--step", "rate", type=float, callback=_rate, metavar="RATE", help="Take a step of gradient descent.")
@click.option("--svg", "svg_file", **FILE, help="Draw the graph into a file.")
@option("seed")
def explain(name: str, rate: float | None, svg_file: Path | None, seed: int) -> None:
    """Print the whole pass of NETWORK as on paper: every value, local derivative, cotangent and gradient.

    NETWORK is a name of `gradwitness list networks`, or FILE:NAME of a gradwitness.Problem.
    """
    from gradwitness.explain import explain as explained
    from gradwitness.networks import NETWORKS, PUBLISHED, network
    from gradwitness.report.explanation import text

    if svg_file is not None:
        expect_writable("--svg", svg_file)
    problem = _problem_to_explain(name) if is_target(name) else network(name, seed=seed)
    explanation = explained(problem, rate=rate, published=PUBLISHED.get(name, ()))
    summary = name if is_target(name) else headline(NETWORKS[name])
    if svg_file is not None:
        from gradwitness.report.drawing import svg

        write("--svg", svg_file, svg(explanation, summary))
    show(text(explanation, summary))


def _problem_to_explain(name: str) -> Problem:
    """The Problem that was named. Raises GradwitnessError for what is none, or has no loss of the vocabulary."""
    from gradwitness.problem import Problem

    found = load(name)
    if isinstance(found, Problem) and found.loss is not None:
        return found
    what = "a Problem without a loss" if isinstance(found, Problem) else type(found).__name__
    raise GradwitnessError(
        "explain takes a network (`gradwitness list networks`), or a gradwitness.Problem whose loss is written over "
        f"gradwitness.ops; {name} is {what}"
    )
