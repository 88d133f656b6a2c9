"""Forward, backward alone, and both, of each backend: `pytest --benchmark-only`.

The engine of `gradwitness bench` measures: what was verified in the same run, in processes of their own, by turns.
pytest-benchmark gets the seconds of each turn, from a clock that passes by as much.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measured import CASES, DTYPE, absence, extra_info, samples, timed
from gradwitness import registry
from gradwitness.timing.calls import PHASES


class Clock:
    """A clock that stands still, but for what it is told to have passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("backend", registry.backend_names())
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("network", "size"), CASES, ids=["-".join(case) for case in CASES])
def test_time(
    network: str,
    size: str,
    phase: str,
    backend: str,
    device: str,
    timed_backends: tuple[str, ...],
    benchmark: BenchmarkFixture,
) -> None:
    if reason := absence(backend, device):
        pytest.skip(reason)
    timing = timed(network, size, timed_backends, device)[backend]
    if timing.why:
        pytest.fail(f"not timed: {timing.verdict}: {timing.why}", pytrace=False)
    if phase not in timing.times:
        pytest.skip(f"{backend} has no {phase} alone: {timing.alone}")
    benchmark.name = backend  # the group says the rest
    benchmark.group = f"{network} {size}, {DTYPE}, {device}: {phase.replace('_', ' + ')}"
    benchmark.extra_info.update(extra_info(timing, phase))
    replay(samples(timing, phase), benchmark)


def replay(seconds: list[float], benchmark: BenchmarkFixture) -> None:
    """A round for each of these, which takes as long."""
    left = iter(seconds)
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        CLOCK.pass_by, setup=lambda: ((next(left),), {}), rounds=len(seconds)
    )
