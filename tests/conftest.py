"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest

from gradwitness import registry
from gradwitness.protocol import Interpreter


@pytest.fixture
def interpreter() -> Interpreter:
    """The backend that runs graphs node by node."""
    return registry.interpreter()
