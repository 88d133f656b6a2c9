"""What is timed is right, on the device asked for, and fresh; and nothing is timed unasked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.cases import CASES, absence, prepared, problem
from benchmarks.test_times import backward
from gradwitness import registry
from gradwitness.protocol import Prepared

ROOT = Path(__file__).parents[2]
PLAIN = "raise SystemExit(pytest.main(sys.argv[1:]))"
PLANTED = f"from tests.project.readme import planted_sign\nwith planted_sign():\n    {PLAIN}"


def run(*arguments: str, code: str = PLAIN) -> str:
    """What a pytest of its own says about the benchmarks."""
    command = [sys.executable, "-c", f"import sys, pytest\n{code}", "benchmarks", "-p", "no:cacheprovider", *arguments]
    path = os.pathsep.join([str(ROOT), *sys.path])
    found = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1), found.stdout + found.stderr
    return found.stdout


def counted(output: str) -> dict[str, int]:
    """Outcomes of the last line: {"passed": 1, ...}."""
    return {
        what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", output.splitlines()[-1])
    }


def test_a_plain_run_times_nothing() -> None:
    output = run()
    assert counted(output) == {"skipped": 3 * len(CASES) * len(registry.backend_names())}
    assert "--benchmark-skip active" in output


def test_a_device_that_is_not_there_is_a_reason_to_skip() -> None:
    output = run("--benchmark-only", "--gradwitness-device", "cuda", "-k", "mlp-small and numpy")
    assert counted(output) == {"skipped": 3}
    assert "numpy does not run on cuda here (it has cpu)" in output


def test_where_it_is_there_nothing_is_skipped() -> None:
    names = [name for name in registry.backend_names() if not registry.missing_modules(name)]
    assert [reason for name in names if (reason := absence(name, "cpu"))] == []


def test_a_wrong_gradient_is_not_timed() -> None:
    selected = "mlp-small and forward_backward and (numpy or torch) and not compile"
    right, planted = (run("--benchmark-only", "-k", selected, code=code) for code in (PLAIN, PLANTED))
    assert counted(right) == {"passed": 2}
    assert {"numpy", "torch"} <= timed(right)
    assert counted(planted) == {"passed": 1, "failed": 1}
    assert timed(planted) == {"torch"}
    assert "not timed, as its gradient is not right" in planted
    assert "mlp float32 numpy layers.0.bias: disagree" in planted


def timed(output: str) -> set[str]:
    """The backends that have a row in the tables."""
    return set(re.findall(rf"^({'|'.join(map(re.escape, registry.backend_names()))}) +\d", output, re.MULTILINE))


class Once:
    """Whatever it makes ready, and an error for a tape that is used twice or that nobody made."""

    def __init__(self, ready: Prepared) -> None:
        self.ready, self.fresh, self.used = ready, list[Any](), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ready, name)

    def forward(self, placed: Any) -> Any:
        self.fresh.append(self.ready.forward(placed))
        return self.fresh[-1]

    def backward(self, tape: Any) -> Any:
        assert any(tape is fresh for fresh in self.fresh), "no fresh tape"
        self.fresh.clear()
        self.used += 1
        return self.ready.backward(tape)


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_each_timed_backward_gets_a_fresh_tape(backend: str) -> None:
    once = Once(prepared(CASES[0], backend, "cpu"))
    target, setup = backward(cast(Prepared, once), once.place(problem(CASES[0]).primals))
    for _ in range(3):  # as pytest-benchmark's pedantic mode runs its rounds
        target(*setup()[0])
    assert once.used == 3
    used, _ = setup()
    target(*used)
    with pytest.raises(AssertionError, match="no fresh tape"):
        target(*used)
