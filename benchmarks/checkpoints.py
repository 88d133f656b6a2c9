"""What checkpoints cost and save in a transformer, whose gradient stays the same: `python -m benchmarks.checkpoints`.

The zoo's transformer, whole and in segments, each of which keeps nothing of what is inside and runs again in the
backward pass (Chen, Xu, Zhang and Guestrin, arXiv:1604.06174). Nothing is timed that did not verify in the same run.
"""

from __future__ import annotations

import click

import gradwitness as gw
from gradwitness.networks.sizes import sized

__all__ = ["candidates", "main"]

SEGMENTS = 8
BACKENDS = ("torch", "jax")


def candidates(segments: int = SEGMENTS) -> dict[str, gw.Candidate]:
    """Each backend with checkpoints, to stand beside the backends themselves."""
    return {f"{name}, checkpoints": gw.Candidate(name, options={"segments": segments}) for name in BACKENDS}


@click.command()
@click.option("--size", default="medium", show_default=True)
@click.option("--segments", default=SEGMENTS, show_default=True)
def main(size: str, segments: int) -> None:
    """Print the verdicts, times and memory."""
    graph = sized("transformer", size)
    several = {name: gw.Candidate(name) for name in BACKENDS} | candidates(segments)
    found = gw.benchmark(graph, candidates=candidates(segments), backends=BACKENDS, dtypes="float32")
    click.echo(f"{size}: {', '.join(several)}, {segments} segments")
    click.echo(found.table())


if __name__ == "__main__":
    main()
