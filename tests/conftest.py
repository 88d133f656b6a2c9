"""What every test shares: the interpreter, Hypothesis without deadlines, and what is skipped when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from gradwitness import registry
from gradwitness.ops import OPS
from gradwitness.own_ops import forget_op
from gradwitness.protocol import Interpreter
from tests.nightly import runs_each_night

pytest_plugins = ["pytester"]  # runs pytest on the suite of tests/plugin

# a framework's first call takes seconds, the next a millisecond
settings.register_profile("gradwitness", deadline=None)
settings.load_profile("gradwitness")


@pytest.fixture
def interpreter() -> Interpreter:
    """The backend that runs graphs node by node."""
    return registry.interpreter()


@pytest.fixture
def vocabulary_restored() -> Iterator[None]:
    """Ops that a test defines are forgotten after it: the vocabulary is the whole process's."""
    before = set(OPS)
    yield
    for name in set(OPS) - before:
        forget_op(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the tests marked `nightly` too")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if runs_each_night(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.nightly)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("nightly") and not item.config.getoption("--nightly"):
        pytest.skip("takes minutes: runs with --nightly")
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no backend has a GPU here")


def _has_gpu() -> bool:
    installed = (name for name in registry.backend_names() if not registry.missing_modules(name))
    return any("cuda" in registry.backend(name).devices() for name in installed)
