"""What counts as the time of a call, by a clock that stands still but for what the calls do."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gradwitness.protocol import Prepared
from gradwitness.timing import calls
from gradwitness.timing.calls import left_to_do, seconds

FORWARD, BACKWARD, EXTRA = 2e-3, 3e-3, 1e-3  # seconds
FETCH = 1e-5


class Clock:
    """The time, which passes by what is done."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(calls, "time", clock)
    return clock


class Device:
    """A Prepared whose device works beside the host, until so many seconds after a call began.

    extra: seconds that its backward sleeps. honest: whether its wait waits.
    """

    def __init__(self, clock: Clock, extra: float = 0.0, *, honest: bool = True) -> None:
        self.clock, self.extra, self.honest, self.busy_until = clock, extra, honest, 0.0

    def work(self, seconds: float) -> Any:
        self.busy_until = max(self.busy_until, self.clock.now) + seconds
        return self.busy_until

    def forward(self, placed: Any) -> Any:
        return self.work(FORWARD)

    def backward(self, tape: Any) -> Any:
        assert tape == self.busy_until, "no fresh tape"
        return self.work(BACKWARD + self.extra)

    def forward_backward(self, placed: Any) -> Any:
        return self.backward(self.forward(placed))

    def wait(self, x: Any) -> None:
        if self.honest:
            self.clock.now = max(self.clock.now, x)

    def fetch(self, gradient: Any) -> Any:
        self.clock.now = max(self.clock.now, gradient) + FETCH
        return {}


@pytest.mark.parametrize("phase", ["forward", "backward", "forward_backward"])
def test_a_backward_that_sleeps_a_millisecond_is_slower_by_a_millisecond(clock: Clock, phase: str) -> None:
    plain, sleeps = (seconds(cast(Prepared, Device(clock, extra)), None, phase, 5) for extra in (0.0, EXTRA))
    slower = 0.0 if phase == "forward" else EXTRA
    assert [b - a for a, b in zip(plain, sleeps, strict=True)] == pytest.approx([slower] * 5, abs=1e-12)
    assert plain == pytest.approx([calls_take(phase)] * 5)


def calls_take(phase: str) -> float:
    return {"forward": FORWARD, "backward": BACKWARD, "forward_backward": FORWARD + BACKWARD}[phase]


def test_an_honest_wait_leaves_nothing_to_do(clock: Clock) -> None:
    assert left_to_do(cast(Prepared, Device(clock)), None) == 0.0


def test_what_a_wait_that_returns_early_leaves_is_found(clock: Clock) -> None:
    found = left_to_do(cast(Prepared, Device(clock, honest=False)), None)
    assert found == pytest.approx(FORWARD + BACKWARD)


def test_a_slow_first_fetch_is_no_early_return(clock: Clock) -> None:
    device = Device(clock)
    plain, slow = device.fetch, iter([1.0])

    def fetch(gradient: Any) -> Any:
        clock.now += next(slow, 0.0)  # what is imported once
        return plain(gradient)

    device.fetch = fetch  # type: ignore[method-assign]
    assert left_to_do(cast(Prepared, device), None) == 0.0


def test_each_timed_backward_gets_a_fresh_tape(clock: Clock) -> None:
    device = Device(clock)
    tape = device.forward(None)
    device.backward(tape)
    with pytest.raises(AssertionError, match="no fresh tape"):
        device.backward(tape)
    assert len(seconds(cast(Prepared, device), None, "backward", 5)) == 5
