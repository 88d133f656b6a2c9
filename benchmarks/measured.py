"""What `pytest --benchmark-only` shows: times that the engine of `gradwitness bench` has measured."""

from __future__ import annotations

from functools import cache
from typing import Any

from gradwitness import registry
from gradwitness.networks import NETWORKS
from gradwitness.networks.sizes import NAMES, sized, sizes_of
from gradwitness.settings import Settings
from gradwitness.timing.engine import available_threads, timings
from gradwitness.timing.records import Timing
from gradwitness.timing.roofline import Machine
from gradwitness.verification import verify_problems

__all__ = ["CASES", "DTYPE", "absence", "extra_info", "samples", "timed"]

DTYPE = "float32"
CASES = tuple((name, size) for size in NAMES for name in NETWORKS if size in sizes_of(name))
BUDGET = 0.3  # seconds of calls, for each backend and phase: all cases together are to take a quarter of an hour
PROCESSES = 1  # `gradwitness bench` takes several


@cache
def machine() -> Machine:
    """Whose rates are measured once."""
    return Machine(available_threads())


@cache
def timed(network: str, size: str, backends: tuple[str, ...], device: str) -> dict[str, Timing]:
    """By backend. All are verified, and timed by turns, when the first is asked for."""
    settings = Settings(dtypes=(DTYPE,), devices=(device,), reference="differences")  # in 256 bits it takes minutes
    report = verify_problems([(sized(network, size), backends)], settings)
    found = timings(report, machine=machine(), budget=BUDGET, processes=PROCESSES)
    return {timing.where.backend: timing for timing in found}


def samples(timing: Timing, phase: str) -> list[float]:
    """The seconds of each turn."""
    return [seconds for turns in timing.samples[phase] for seconds in turns]


def extra_info(timing: Timing, phase: str) -> dict[str, Any]:
    """What is kept beside the times. flops, bytes: the least of this phase; of_limit: the part of the roofline."""
    work = timing.work[phase]
    return {
        "verdict": timing.verdict,
        "parameters": timing.parameters,
        "threads": timing.threads,
        "flops": work.flops,
        "bytes": work.bytes,
        "of_limit": timing.of_limit.get(phase),
        "setup_seconds": timing.setup_seconds,
        "peak_memory": timing.memory,
    }


def absence(backend: str, device: str) -> str:
    """Why the backend cannot run on the device here; empty if it can."""
    found = registry.backend(backend)
    if missing := registry.missing_modules(backend):
        return f"{backend} needs {', '.join(missing)}, which is not installed: {found.capabilities.install}"
    devices = found.devices()
    return "" if device in devices else f"{backend} does not run on {device} here (it has {', '.join(devices)})"
