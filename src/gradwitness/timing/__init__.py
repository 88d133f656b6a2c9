"""How long a backward pass takes: of gradients that were verified, each in a process of its own, by turns."""

from gradwitness.timing.engine import Benchmark, benchmark
from gradwitness.timing.records import Timing

__all__ = ["Benchmark", "Timing", "benchmark"]
