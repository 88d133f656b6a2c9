"""`python -m benchmarks.cost.transformer`: what it takes to verify torch's gradient of the zoo's transformer, grown to
800,000 parameters in 69 tensors, in training steps of the same graph in torch."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Any

import click
import torch

import gradwitness as gw
from benchmarks.cost.measure import step_seconds
from gradwitness import registry, tree
from gradwitness.networks import network
from gradwitness.problem import Problem

SIZES = {"width": 128, "depth": 32, "hidden": 512, "heads": 4, "blocks": 4, "batch": 8, "time": 32}


def training(problem: Problem, dtype: str) -> float:
    """Seconds of a training step."""
    loss = registry.backend("torch").lower(problem.graph)
    as_given = {path: torch.tensor(x) for path, x in problem.leaves.items()}
    leaves = {path: x.to(getattr(torch, dtype)) if x.is_floating_point() else x for path, x in as_given.items()}
    trained = [leaves[path].requires_grad_() for path in problem.differentiated]
    return step_seconds(lambda: loss(leaves), trained)


def in_torch(problem: Problem) -> gw.Candidate:
    """The same loss as a user of torch would have it: a function of params and batch, in torch's own functions."""
    loss = registry.backend("torch").lower(problem.graph)
    constants = {path: torch.tensor(x) for path, x in problem.graph.constants.items()}

    def own(params: Any, batch: Any) -> Any:
        return loss({**tree.flatten(params, "params"), **tree.flatten(batch, "batch"), **constants})

    return gw.Candidate("torch", own)


@click.command()
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True)
@click.option("--reference", type=click.Choice(["extended", "differences"]), default="extended", show_default=True)
@click.option("--own", is_flag=True, help="Beside it, as a loss in torch, which is captured; and the ratio of both.")
def main(dtype: str, reference: str, own: bool) -> None:
    """Verify it, and print what it took."""
    torch.set_num_threads(1)
    problem = network("transformer", **SIZES)
    gw.verify(network("article"), backends="torch", dtypes=dtype)  # what is imported once is no cost of a size
    before = training(problem, dtype)
    started = time.perf_counter()
    report = gw.verify(problem, backends="torch", dtypes=dtype, reference=reference)
    taken = time.perf_counter() - started
    if own:
        started = time.perf_counter()
        captured = gw.verify(in_torch(problem), problem.params, problem.batch, dtypes=dtype, reference=reference)
        ratio = (time.perf_counter() - started) / taken
        by_graph = sum(row.captured is not None for row in captured.rows)
        judged = f"{by_graph} of {len(captured.rows)} by its graph; {captured.summary()}"
        click.echo(f"as a loss in torch: {ratio:.2f} times what follows; {judged}")
    step = statistics.mean([before, training(problem, dtype)])
    count = sum(x.size for x in problem.primals.values())
    verdicts = Counter(str(row.verdict) for row in report.rows)
    click.echo(
        f"{count} parameters, {len(problem.primals)} tensors, {dtype}, {reference}: {taken:.1f} s, "
        f"{taken / step:.0f} training steps of {step:.3g} s; {', '.join(f'{n} {v}' for v, n in verdicts.items())}"
    )


if __name__ == "__main__":
    main()
