"""The option that says where to time, and what is selected to be timed."""

from __future__ import annotations

import pytest

from benchmarks.measured import absence


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gradwitness-device", default="cpu", metavar="DEVICE", help="time on this device: cpu or cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--gradwitness-device"))


@pytest.fixture(scope="session")
def timed_backends(request: pytest.FixtureRequest, device: str) -> tuple[str, ...]:
    """The backends that this run times: those selected (`-k`) that can run on the device."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = dict.fromkeys(params["backend"] for params in calls if {"backend", "phase"} <= params.keys())
    return tuple(name for name in selected if not absence(name, device))
