"""What is timed is right, and as long as it takes; what is not is not timed, and says why."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness.timing.table import table

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((64, 64))}
BATCH = {"x": RNG.standard_normal((128, 64))}
EXTRA = 1e-3  # seconds
LATE = 0.02


def wait(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def square(extra: float, factor: float) -> Any:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            wait(extra)
            return factor * g * x

    apply: Any = Square.apply
    return lambda p, b: apply(b["x"] @ p["w"]).mean()


class Pending:
    """An array that is still being computed, until somebody asks for its numbers."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.work = threading.Thread(target=self.run, args=(compute,))
        self.work.start()

    def run(self, compute: Callable[[], Any]) -> None:
        time.sleep(LATE)
        self.found = compute()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self.work.join()
        return np.asarray(self.found, dtype)


def by_hand(p: Any, b: Any) -> Any:
    return 2 * b["x"].T @ (b["x"] @ p["w"]) / (128 * 64)


@pytest.fixture(scope="module")
def measured() -> dict[str, gw.Timing]:
    candidates = {
        "plain": gw.Candidate("torch", square(0.0, 2.0)),
        "sleeps": gw.Candidate("torch", square(EXTRA, 2.0)),
        "wrong": gw.Candidate("torch", square(0.0, 2.1)),
        "by hand": gw.Candidate(
            "numpy",
            lambda p, b: np.mean((b["x"] @ p["w"]) ** 2),
            gradient=lambda p, b: {"w": by_hand(p, b)},
        ),
        "asynchronous": gw.Candidate(
            "numpy",
            lambda p, b: np.mean((b["x"] @ p["w"]) ** 2),
            gradient=lambda p, b: {"w": Pending(lambda: by_hand(p, b))},
        ),
    }
    how: Any = {"dtypes": "float32", "capture": "never", "threads": 1, "budget": 0.3, "processes": 1}
    found = gw.benchmark(candidates, PARAMS, BATCH, backends=None, **how)
    return {timing.where.candidate: timing for timing in found}


def test_a_backward_that_sleeps_is_slower(measured: dict[str, gw.Timing]) -> None:
    for phase in ("backward", "forward_backward"):
        plain, sleeps = (measured[label].times[phase] for label in ("plain", "sleeps"))
        assert sleeps.high - plain.low >= EXTRA
        assert measured["sleeps"].ratios[phase].low > 1.0


def test_a_wrong_gradient_is_not_timed(measured: dict[str, gw.Timing]) -> None:
    wrong = measured["wrong"]
    assert wrong.verdict == "disagree"
    assert not wrong.times
    assert "finite differences refute it" in wrong.why


def test_an_asynchronous_backend_whose_wait_returns_early_is_not_timed(measured: dict[str, gw.Timing]) -> None:
    late = measured["asynchronous"]
    assert late.verdict == "agree"
    assert not late.times
    assert re.search(r"its wait\(\) returns early: a gradient takes 0\.0\d+ s more to arrive", late.why)


def test_where_the_backward_does_not_run_alone_that_is_said(measured: dict[str, gw.Timing]) -> None:
    timing = measured["by hand"]
    assert "backward" not in timing.times
    assert "its own forward" in timing.alone
    assert timing.times["forward_backward"].middle > 0


def test_the_rest_is_on_record(measured: dict[str, gw.Timing]) -> None:
    timing = measured["plain"]
    assert timing.parameters == 64 * 64
    assert timing.threads == 1
    assert timing.setup_seconds is not None
    assert timing.memory is None or 0 <= timing.memory < 2**26
    assert timing.ratios["backward"].middle == 1.0


def test_the_table_has_a_line_of_each(measured: dict[str, gw.Timing]) -> None:
    shown = table(list(measured.values()))
    assert "loss, 4,096 parameters, float32, cpu, 1 thread" in shown
    assert re.search("^wrong +disagree$", shown, re.MULTILINE)
    assert "wrong was not timed: " in shown
    assert "by hand has no backward alone" in shown


def test_it_is_falsy_where_something_was_not_timed(measured: dict[str, gw.Timing]) -> None:
    assert gw.Benchmark((measured["plain"],), {})
    assert not gw.Benchmark((measured["plain"], measured["wrong"]), {})
    assert not gw.Benchmark((), {})


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(gw.GradwitnessError, match="threads: expected a number from 1 to"):
        gw.benchmark({"torch": square(0.0, 2.0)}, PARAMS, BATCH, dtypes="float32", threads=10_000)
