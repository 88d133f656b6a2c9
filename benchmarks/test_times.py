"""Forward, backward alone, and both, of each backend: `pytest --benchmark-only`.

What is timed was verified in the same run, at the size, in the dtype and on the device at which it is timed.
Setup stays outside, the device is waited for, and every backward gets a fresh tape.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import CASES, DTYPE, Case, absence, prepared, problem, rows_of, wrong
from gradwitness import registry
from gradwitness.protocol import Prepared

WARM_UP = 3
SECONDS, FEWEST, MOST = 1.5, 8, 100  # for the rounds of one line of a table
Timed = tuple[Callable[..., Any], Callable[[], tuple[tuple[Any], dict[str, Any]]]]


def forward(ready: Prepared, placed: Any) -> Timed:
    return ready.forward, lambda: ((placed,), {})


def backward(ready: Prepared, placed: Any) -> Timed:
    def fresh_tape() -> tuple[tuple[Any], dict[str, Any]]:
        tape = ready.forward(placed)
        ready.wait(tape)
        return (tape,), {}

    return ready.backward, fresh_tape


def forward_backward(ready: Prepared, placed: Any) -> Timed:
    return ready.forward_backward, lambda: ((placed,), {})


@pytest.mark.parametrize("backend", registry.backend_names())
@pytest.mark.parametrize("phase", [forward, backward, forward_backward], ids=lambda phase: phase.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_time(
    case: Case,
    phase: Callable[[Prepared, Any], Timed],
    backend: str,
    device: str,
    timed_backends: tuple[str, ...],
    benchmark: BenchmarkFixture,
) -> None:
    if reason := absence(backend, device):
        pytest.skip(reason)
    readies = {name: prepared(case, name, device) for name in timed_backends}
    rows = rows_of(case, timed_backends, device)
    if reasons := wrong(rows, backend):
        pytest.fail("not timed, as its gradient is not right:\n" + "\n".join(reasons), pytrace=False)
    benchmark.name = backend  # the group says the rest
    benchmark.group = f"{case.described}, {DTYPE}, {device}: {phase.__name__.replace('_', ' + ')}"
    with registry.backend(backend).precision("highest"):
        ready = readies[backend]
        time(ready, phase(ready, ready.place(problem(case).primals)), benchmark)
    verdicts = {str(row.verdict) for row in rows if row.backend == backend}
    benchmark.extra_info.update(verdict=", ".join(sorted(verdicts)), setup_seconds=ready.setup_seconds)


def time(ready: Prepared, timed: Timed, benchmark: BenchmarkFixture) -> None:
    """Rounds of one phase, as many as fit in the time; what comes before it in each is not timed."""
    target, setup = timed

    def run(argument: Any) -> None:
        ready.wait(target(argument))

    def alone() -> None:
        (argument,), _ = setup()
        run(argument)

    first = min(timeit.repeat(alone, number=1, repeat=WARM_UP))
    rounds = min(max(int(SECONDS / first), FEWEST), MOST)
    benchmark.pedantic(run, setup=setup, rounds=rounds)  # type: ignore[no-untyped-call]
