"""Forward, backward alone, and both, of each backend: `pytest --benchmark-only`.

What is timed was verified in the same run, at the size at which it is timed. Setup stays outside, the
device is waited for, and every backward gets a fresh tape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gradwitness import registry
from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.report import Report
from gradwitness.verify import Settings, verify_problems

DTYPE = "float32"
SIZES: dict[str, dict[str, Any]] = {
    "mlp": {"batch": 64, "width": 256},
    "convnet": {"batch": 32},
    "transformer": {"batch": 8},
}
ROUNDS, WARM_UP = 30, 5


@cache
def problem(name: str) -> Problem:
    return network(name, **SIZES[name]).rounded(DTYPE)


@cache
def verified(name: str, backend: str) -> Report:
    return verify_problems([(problem(name), [backend])], Settings(dtypes=(DTYPE,)))


@cache
def prepared(name: str, backend: str) -> Prepared:
    return registry.backend(backend).prepare(Candidate(backend), problem(name), dtype=DTYPE, device="cpu")


def forward(ready: Prepared, placed: Any) -> tuple[Callable[..., Any], Callable[[], Any]]:
    return ready.forward, lambda: ((placed,), {})


def backward(ready: Prepared, placed: Any) -> tuple[Callable[..., Any], Callable[[], Any]]:
    def fresh_tape() -> tuple[tuple[Any], dict[str, Any]]:
        tape = ready.forward(placed)
        ready.wait(tape)
        return (tape,), {}

    return ready.backward, fresh_tape


def forward_backward(ready: Prepared, placed: Any) -> tuple[Callable[..., Any], Callable[[], Any]]:
    return ready.forward_backward, lambda: ((placed,), {})


@pytest.mark.parametrize("backend", registry.backend_names())
@pytest.mark.parametrize("phase", [forward, backward, forward_backward], ids=lambda phase: phase.__name__)
@pytest.mark.parametrize("name", SIZES)
def test_time(name: str, phase: Callable[..., Any], backend: str, benchmark: BenchmarkFixture) -> None:
    if registry.missing_modules(backend):
        pytest.skip(f"{backend} is not installed: {registry.backend(backend).capabilities.install}")
    report = verified(name, backend)
    assert report.ok, repr(report)
    ready = prepared(name, backend)
    with registry.backend(backend).precision("highest"):
        target, setup = phase(ready, ready.place(problem(name).primals))

        def run(argument: Any) -> None:
            ready.wait(target(argument))

        benchmark.group = f"{name} {DTYPE} {phase.__name__}"
        benchmark.extra_info.update(verdict=str(report.rows[0].verdict), setup_seconds=ready.setup_seconds)
        benchmark.pedantic(run, setup=setup, rounds=ROUNDS, warmup_rounds=WARM_UP)  # type: ignore[no-untyped-call]
