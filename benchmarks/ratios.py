"""NumPy's backward held against torch autograd's, by turns in one run: `python -m benchmarks.ratios`."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import click

from benchmarks.measured import DTYPE
from gradwitness.networks.sizes import sized
from gradwitness.settings import Settings
from gradwitness.timing.engine import available_threads, timings
from gradwitness.timing.records import Timing
from gradwitness.timing.roofline import Machine
from gradwitness.verification import verify_problems

__all__ = ["LIMITS", "main"]

BACKENDS = ("torch", "numpy")  # ratios are to the first
LIMITS = {  # of NumPy's time over torch's
    ("mlp", "large"): 1.0,
    ("convnet", "large"): 1.2,
    ("transformer", "medium"): 1.5,
    ("lstm", "medium"): 1.5,
}


@click.command()
@click.option("--threads", default=available_threads(), help="Of each backend (default: the cores).")
@click.option("--budget", default=3.0, show_default=True, help="Seconds of calls, for each time.")
def main(threads: int, budget: float) -> None:
    """A line per case: both times, their ratio, and the same over the ratio of the libraries' matmul rates."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "torch"))
    print(f"{versions}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads, {DTYPE}")
    machine = Machine(threads)
    for (network, size), limit in LIMITS.items():
        settings = Settings(dtypes=(DTYPE,), reference="differences")
        report = verify_problems([(sized(network, size), BACKENDS)], settings)
        torch, numpy = timings(report, machine=machine, budget=budget)
        if why := torch.why or numpy.why:
            raise SystemExit(why)
        print(line(f"{network} {size}", torch, numpy, machine, limit), flush=True)


def line(name: str, torch: Timing, numpy: Timing, machine: Machine, limit: float) -> str:
    ratio = numpy.ratios["backward"]
    rates = {backend: machine.flops(backend, DTYPE, "cpu") for backend in BACKENDS}
    blas = rates["torch"] / rates["numpy"]
    return (
        f"{name}: backward of numpy {1e3 * numpy.times['backward'].middle:.3f} ms, of torch "
        f"{1e3 * torch.times['backward'].middle:.3f} ms, ratio {ratio.middle:.2f} ({ratio.low:.2f} to "
        f"{ratio.high:.2f}), limit {limit}; {ratio.middle / blas:.2f} over that of a matrix product, {blas:.2f}; "
        f"{numpy.of_limit['backward']:.0%} of the roofline"
    )


if __name__ == "__main__":
    main()
